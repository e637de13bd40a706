//! Choices made of an input: a list of bytes that each decide something, and zeros after their end.
//!
//! It refuses to fail: every input is a sequence of choices, so that a fuzzer loses nothing by changing one.

/// Reads an input as choices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choices<'a> {
    left: &'a [u8],
}

impl<'a> Choices<'a> {
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Self { left: data }
    }

    /// Whether nothing is left to decide by.
    pub(crate) const fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    /// What is left, unread.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.left
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    pub(crate) fn is_one_of(&mut self, several: usize) -> bool {
        self.below(several) == 1
    }

    /// Mostly a small number, sometimes one at the end of a range.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..200 => u64::from(byte % 50),
            200..215 => u64::from(u16::from_be_bytes([self.byte(), self.byte()])),
            215..230 => u64::from_be_bytes(std::array::from_fn(|_| self.byte())),
            230..240 => u64::MAX - u64::from(self.byte()),
            240..248 => (1 << 63) - 128 + u64::from(self.byte()),
            248..=255 => (u64::MAX / 2).wrapping_sub(128).wrapping_add(u64::from(self.byte())),
        }
    }

    /// So many of the next bytes as there are.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.left.split_at(count.min(self.left.len()));
        self.left = rest;
        taken
    }

    /// Some bytes, with their number before them.
    pub(crate) fn some_bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        self.bytes(count)
    }

    /// Changes bytes in a few places.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            let place = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
            let place = place % bytes.len().max(1);
            match self.below(6) {
                0 => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte = self.byte()),
                1 => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << (self.byte() % 8)),
                2 => bytes.truncate(place),
                3 => bytes.insert(place.min(bytes.len()), self.byte()),
                4 => {
                    let part = bytes[place.min(bytes.len())..].iter().take(self.below(40)).copied().collect::<Vec<_>>();
                    let to = self.below(bytes.len() + 1);
                    drop(bytes.splice(to..to, part));
                }
                _ => {
                    // The head of a list, a map, bytes or a text that is longer than anything could be.
                    let head = [0x9b, 0xbb, 0x5b, 0x7b][self.below(4)];
                    let claim = std::iter::once(head).chain((u64::MAX >> (self.byte() % 60)).to_be_bytes());
                    let place = place.min(bytes.len());
                    drop(bytes.splice(place..(place + 1).min(bytes.len()), claim));
                }
            }
        }
    }
}
