//! What names one schedule of an object, wherever the object goes.
//!
//! It refuses to say what is scheduled, and when.

use crate::ObjectId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One schedule: a task that is due once, or again and again. It belongs to an object, moves with it and ends with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ScheduleId {
    /// The object that it belongs to.
    pub object: ObjectId,
    /// A random number that is never used again.
    pub number: u64,
}

impl fmt::Display for ScheduleId {
    /// What `from_str` reads.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}-{:016x}", self.object.as_u128(), self.number)
    }
}

/// A text is no id of a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the id of a schedule is the id of its object and a number, in hexadecimal digits with - between them")]
pub struct ParseScheduleIdError;

impl FromStr for ScheduleId {
    type Err = ParseScheduleIdError;

    fn from_str(text: &str) -> Result<Self, ParseScheduleIdError> {
        let (object, number) = text.split_once('-').ok_or(ParseScheduleIdError)?;
        let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_plain(object) || !is_plain(number) {
            return Err(ParseScheduleIdError);
        }
        let object = u128::from_str_radix(object, 16).map_err(|_| ParseScheduleIdError)?;
        let number = u64::from_str_radix(number, 16).map_err(|_| ParseScheduleIdError)?;
        Ok(Self { object: ObjectId::from_u128(object), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_the_id_back() {
        for (object, number) in [(0, 0), (7, 1), (u128::MAX, u64::MAX)] {
            let id = ScheduleId { object: ObjectId::from_u128(object), number };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "-", "1", "1-", "-1", "1-2-3", "1-x", "+1-2", "1-10000000000000000"] {
            assert_eq!(text.parse::<ScheduleId>(), Err(ParseScheduleIdError), "{text:?}");
        }
    }
}
