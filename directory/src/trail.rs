//! What a search did, for people: what it knew, whom it asked, what they said.
//!
//! It refuses to grow beyond a bound; what follows is counted.

use crate::{Holds, Record};
use driftmesh_model::{GroupId, PeerId};
use std::fmt;

/// Most steps kept of one search.
const STEPS_MAX: usize = 64;

/// What led to an object's owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The asking peer's own group owns it.
    Own,
    /// The asking peer's location hint.
    Hint,
    /// A forwarding pointer of a group that had it.
    Pointer,
    /// A home record.
    Home,
    /// Everybody was asked.
    Search,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Own => "own",
            Self::Hint => "hint",
            Self::Pointer => "pointer",
            Self::Home => "home",
            Self::Search => "search",
        })
    }
}

/// One step of a search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The asking peer had this record at the beginning, or was told of it unasked.
    Knew(Source, Record),
    /// The group that the best record names was asked for the object itself.
    AskedGroup(GroupId),
    /// The object's homes were asked.
    AskedHomes(Vec<PeerId>),
    /// Everybody in reach was asked; so many.
    AskedEveryone(usize),
    /// A peer said what its own group holds, and the best record it knows.
    Told(PeerId, Holds, Option<Record>),
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Knew(source, record) => {
                write!(formatter, "knew by {source}: group {} at epoch {}", record.group, record.epoch)
            }
            Self::AskedGroup(group) => write!(formatter, "asked group {group}"),
            Self::AskedHomes(homes) => {
                let homes: Vec<String> = homes.iter().map(ToString::to_string).collect();
                write!(formatter, "asked the homes {}", homes.join(", "))
            }
            Self::AskedEveryone(peers) => write!(formatter, "asked all {peers} peers in reach"),
            Self::Told(peer, holds, record) => {
                let own = match holds {
                    Holds::Owns => "owns it",
                    Holds::Sending => "is sending it away",
                    Holds::No => "has it not",
                };
                write!(formatter, "peer {peer} {own}")?;
                match record {
                    Some(record) => write!(formatter, "; knows group {} at epoch {}", record.group, record.epoch),
                    None => write!(formatter, "; knows nothing of it"),
                }
            }
        }
    }
}

/// The steps of one search, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trail {
    steps: Vec<Step>,
    more: u64,
}

impl Trail {
    /// Adds a step.
    pub fn push(&mut self, step: Step) {
        if self.steps.len() < STEPS_MAX {
            self.steps.push(step);
        } else {
            self.more += 1;
        }
    }

    /// The steps kept.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many steps followed those kept.
    #[must_use]
    pub const fn more(&self) -> u64 {
        self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_search_keeps_its_beginning_and_counts_the_rest() {
        let mut trail = Trail::default();
        for peers in 0..STEPS_MAX + 3 {
            trail.push(Step::AskedEveryone(peers));
        }
        assert_eq!((trail.steps().len(), trail.more()), (STEPS_MAX, 3));
        assert_eq!(trail.steps()[1].to_string(), "asked all 1 peers in reach");
    }
}
