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

    /// Reads what `Display` writes, and nothing shorter: an id that lost a digit on its way is no other id.
    fn from_str(text: &str) -> Result<Self, ParseScheduleIdError> {
        let (object, number) = text.split_once('-').ok_or(ParseScheduleIdError)?;
        let object = object.parse().map_err(|_| ParseScheduleIdError)?;
        let number = u64::from_str_radix(number, 16).map_err(|_| ParseScheduleIdError)?;
        let id = Self { object, number };
        if id.to_string().eq_ignore_ascii_case(text) { Ok(id) } else { Err(ParseScheduleIdError) }
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
        let whole = ScheduleId { object: ObjectId::from_u128(7), number: u64::MAX }.to_string();
        for text in ["", "-", "1-2", &format!("{whole}-"), &format!("{whole}0"), &format!("+{whole}")] {
            assert_eq!(text.parse::<ScheduleId>(), Err(ParseScheduleIdError), "{text:?}");
        }
        // A text that a line of a log has cut.
        for length in 0..whole.len() {
            assert_eq!(whole[..length].parse::<ScheduleId>(), Err(ParseScheduleIdError), "{length}");
            assert!(whole[whole.len() - length..].parse::<ScheduleId>().is_err(), "{length}");
        }
    }
}
