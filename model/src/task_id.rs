//! What names one request to run a task, over all copies of the request: made by whoever submits it.
//!
//! It refuses to say what the task is: an id means one request and nothing else (R21).

use crate::{Micros, ObjectId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What tells tasks of one anchor apart. The order is that of the callers' clocks: the earlier ones are forgotten first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TaskKey {
    /// When it was made: wall clock. Whatever makes one key after the other never makes two with the same time.
    pub issued: Micros,
    /// Of a key that a peer made, which peer that was; else a random number. See [`TaskKey::maker`].
    pub number: u64,
}

/// What is set in the number of a key that a peer made.
const OF_PEER: u64 = 1 << 63;

impl TaskKey {
    /// A key made by a peer that makes all its keys with this number, each later than the one before.
    #[must_use]
    pub const fn of_peer(issued: Micros, number: u64) -> Self {
        Self { issued, number: number | OF_PEER }
    }

    /// A key made by a caller with a random number.
    #[must_use]
    pub const fn of_caller(issued: Micros, random: u64) -> Self {
        Self { issued, number: random & !OF_PEER }
    }

    /// What stands for the peer that made it, if a peer did: its keys are told apart by their times alone.
    #[must_use]
    pub const fn maker(self) -> Option<u64> {
        if self.number & OF_PEER == 0 { None } else { Some(self.number) }
    }
}

/// One request to run a task. Whoever keeps it can submit the same task again, at any peer: it takes effect once (R21).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TaskId {
    /// The object that keeps its outcome: every copy of the request meets the outcome there.
    pub anchor: ObjectId,
    /// What tells it apart from others with that anchor.
    pub key: TaskKey,
}

impl fmt::Display for TaskId {
    /// What `from_str` reads.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}-{:x}-{:016x}", self.anchor.as_u128(), self.key.issued.0, self.key.number)
    }
}

/// A text is no task id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a task id is the id of its anchor, a time and a number, in hexadecimal digits with - between them")]
pub struct ParseTaskIdError;

impl FromStr for TaskId {
    type Err = ParseTaskIdError;

    /// Reads what `Display` writes, and nothing shorter: an id that lost a digit on its way would name another task, and take
    /// effect a second time (R21).
    fn from_str(text: &str) -> Result<Self, ParseTaskIdError> {
        let mut parts = text.split('-');
        let (Some(anchor), Some(issued), Some(number)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ParseTaskIdError);
        };
        let anchor = anchor.parse().map_err(|_| ParseTaskIdError)?;
        let issued = u64::from_str_radix(issued, 16).map_err(|_| ParseTaskIdError)?;
        let number = u64::from_str_radix(number, 16).map_err(|_| ParseTaskIdError)?;
        let id = Self { anchor, key: TaskKey { issued: Micros(issued), number } };
        if id.to_string().eq_ignore_ascii_case(text) { Ok(id) } else { Err(ParseTaskIdError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_whether_a_peer_made_it() {
        for number in [0, 1, u64::MAX] {
            let issued = Micros(1);
            assert_eq!(TaskKey::of_caller(issued, number).maker(), None);
            let of_peer = TaskKey::of_peer(issued, number);
            assert_eq!(of_peer.maker(), Some(of_peer.number));
        }
    }

    #[test]
    fn a_text_gives_the_id_back() {
        let key = TaskKey { issued: Micros(1_767_225_600_000_000), number: u64::MAX };
        for anchor in [0, 7, u128::MAX] {
            let id = TaskId { anchor: ObjectId::from_u128(anchor), key };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        let whole = TaskId { anchor: ObjectId::from_u128(u128::MAX), key }.to_string();
        assert_eq!(whole.to_uppercase().parse::<TaskId>().map(|id| id.key), Ok(key));
        for text in
            ["", "-", "--", "1-2-3", "1-2-3-4", &format!("{whole}-"), &format!("{whole}0"), &format!("+{whole}")]
        {
            assert_eq!(text.parse::<TaskId>(), Err(ParseTaskIdError), "{text:?}");
        }
        // A text that a line of a log has cut.
        for length in 0..whole.len() {
            assert_eq!(whole[..length].parse::<TaskId>(), Err(ParseTaskIdError), "{length}");
            assert!(whole[whole.len() - length..].parse::<TaskId>().is_err(), "{length}");
        }
        // A zero more in front of a number is no other way to say it.
        assert!(whole.replacen('-', "-0", 1).parse::<TaskId>().is_err());
    }
}
