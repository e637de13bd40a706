//! The frames between the orchestrator and a peer process: a length, a kind, a body.
//!
//! It refuses bodies beyond a bound before it makes room for them, and knows nothing of what they say.

use std::io::{self, ErrorKind, Read};

/// Longest body, bytes: the list of a million players is about 32 MB.
const BODY_MAX: usize = 128 << 20;
/// Bytes before the body: its length and the kind.
const HEADER: usize = 5;

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// One order or answer in JSON.
    Control,
    /// Records of trades, one after the other.
    Trades,
    /// Acts of a workload.
    Acts,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Trades => 1,
            Self::Acts => 2,
        }
    }
}

/// Appends a frame to a buffer.
pub(crate) fn append(buffer: &mut Vec<u8>, kind: Kind, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= BODY_MAX);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the frame is too long"))?;
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.push(kind.byte());
    buffer.extend_from_slice(body);
    Ok(())
}

/// Reads a frame. `None` when the other side has closed; it may have been killed in the middle of a frame.
pub(crate) fn read(input: &mut impl Read, body: &mut Vec<u8>) -> io::Result<Option<Kind>> {
    let mut header = [0; HEADER];
    if let Err(error) = input.read_exact(&mut header) {
        return none_at_end(error);
    }
    let (length, kind) = parse(header)?;
    body.resize(length, 0);
    input.read_exact(body).map_or_else(none_at_end, |()| Ok(Some(kind)))
}

fn none_at_end(error: io::Error) -> io::Result<Option<Kind>> {
    if error.kind() == ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) }
}

fn parse(header: [u8; HEADER]) -> io::Result<(usize, Kind)> {
    let [a, b, c, d, kind] = header;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let kind = match kind {
        0 => Kind::Control,
        1 => Kind::Trades,
        2 => Kind::Acts,
        _ => return Err(io::Error::new(ErrorKind::InvalidData, "a frame of no known kind")),
    };
    if length > BODY_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "a frame that is too long"));
    }
    Ok((length, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive() {
        let mut written = Vec::new();
        append(&mut written, Kind::Control, b"{}\n").unwrap();
        append(&mut written, Kind::Trades, &[]).unwrap();
        let (mut input, mut body) = (written.as_slice(), Vec::new());
        assert_eq!(read(&mut input, &mut body).unwrap(), Some(Kind::Control));
        assert_eq!(body, b"{}\n");
        assert_eq!(read(&mut input, &mut body).unwrap(), Some(Kind::Trades));
        assert!(body.is_empty());
        assert_eq!(read(&mut input, &mut body).unwrap(), None);
    }

    #[test]
    fn a_cut_frame_is_the_end_and_rubbish_is_an_error() {
        let mut written = Vec::new();
        append(&mut written, Kind::Control, b"abc").unwrap();
        assert_eq!(read(&mut &written[..6], &mut Vec::new()).unwrap(), None);
        assert!(read(&mut [1, 0, 0, 0, 9, 0].as_slice(), &mut Vec::new()).is_err());
        assert!(read(&mut [255, 255, 255, 255, 0].as_slice(), &mut Vec::new()).is_err());
    }
}
