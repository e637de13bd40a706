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
    /// When its caller made it: wall clock.
    pub issued: Micros,
    /// A random number.
    pub number: u64,
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

    fn from_str(text: &str) -> Result<Self, ParseTaskIdError> {
        let is_plain = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parts: Vec<&str> = text.split('-').filter(is_plain).collect();
        let [anchor, issued, number] = parts[..] else { return Err(ParseTaskIdError) };
        if text.split('-').count() != 3 {
            return Err(ParseTaskIdError);
        }
        let anchor = u128::from_str_radix(anchor, 16).map_err(|_| ParseTaskIdError)?;
        let issued = u64::from_str_radix(issued, 16).map_err(|_| ParseTaskIdError)?;
        let number = u64::from_str_radix(number, 16).map_err(|_| ParseTaskIdError)?;
        Ok(Self { anchor: ObjectId::from_u128(anchor), key: TaskKey { issued: Micros(issued), number } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_the_id_back() {
        let key = TaskKey { issued: Micros(1_767_225_600_000_000), number: u64::MAX };
        for anchor in [0, 7, u128::MAX] {
            let id = TaskId { anchor: ObjectId::from_u128(anchor), key };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "-", "--", "1-2", "1-2-3-4", "1-2-x", "1--3", "-1-2-3", "1-2-10000000000000000"] {
            assert_eq!(text.parse::<TaskId>(), Err(ParseTaskIdError), "{text:?}");
        }
    }
}
