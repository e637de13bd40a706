//! Points at which a simulator may make a peer take the branch that is seldom taken: a bound that is reached early, a refusal
//! that was not needed, a note that is forgotten. All of them are legal at any time, so nothing may go wrong by them; but what
//! follows after them is where errors hide (after FoundationDB's "buggify": Zhou et al., SIGMOD 2021).
//!
//! A live peer never takes them: its configuration has no seed for it. It refuses to break rules: that is what sabotages do.

use crate::Peer;
use driftmesh_model::SplitMix;
use serde::Serialize;

/// One of these points.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum RareBranch {
    /// A grant is refused that could be adopted (R19).
    RefuseGrant,
    /// A grant is repeated though its answer may be on its way (R20).
    RepeatGrant,
    /// An object waits for the grant window though there is room.
    FullGrantWindow,
    /// An object waits for room for its pointer though there is some (R3).
    FullPointers,
    /// A value that was spared is asked for whole.
    MissingValues,
    /// A group is not followed though there is room (R24).
    RefuseGroup,
    /// A subscriber is refused though there is room (R24).
    RefuseSubscriber,
    /// A record that was told is forgotten at once (R1).
    ForgetHint,
    /// A copy here does not answer a read that it could.
    CopyBehind,
    /// A commit waits for what is not stable though it is not too much (R10).
    HoldCommit,
    /// What is said about many objects leaves in a message for each.
    SmallMessages,
    /// A search asks again before anybody could answer.
    AskAgainEarly,
    /// A task is told to come to an object that could as well go to it.
    StayPut,
}

impl RareBranch {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::RefuseGrant,
        Self::RepeatGrant,
        Self::FullGrantWindow,
        Self::FullPointers,
        Self::MissingValues,
        Self::RefuseGroup,
        Self::RefuseSubscriber,
        Self::ForgetHint,
        Self::CopyBehind,
        Self::HoldCommit,
        Self::SmallMessages,
        Self::AskAgainEarly,
        Self::StayPut,
    ];
}

/// Which branches one peer takes now and then. None unless it was given a seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct RareBranches {
    active: u32,
    random: SplitMix,
}

impl RareBranches {
    /// Of each four branches one is active, by chance, and is then taken one time of four.
    const ODDS: u64 = 4;

    pub(crate) fn new(seed: Option<u64>) -> Self {
        let mut branches = Self { active: 0, random: SplitMix::of_seed(seed.unwrap_or_default()) };
        if seed.is_some() {
            for branch in RareBranch::ALL {
                if branches.random.draw().is_multiple_of(Self::ODDS) {
                    branches.active |= 1 << branch as u32;
                }
            }
        }
        branches
    }

    pub(crate) const fn is_active(&self, branch: RareBranch) -> bool {
        self.active & (1 << branch as u32) != 0
    }
}

impl Peer {
    /// Whether to take a rare branch here and now.
    pub(crate) fn rarely(&mut self, branch: RareBranch) -> bool {
        if !self.rare_branches.is_active(branch) {
            return false;
        }
        let taken = self.rare_branches.random.draw().is_multiple_of(RareBranches::ODDS);
        if taken {
            *self.metrics.branches.entry(branch).or_default() += 1;
        }
        taken
    }

    /// Takes no rare branch any more: peace has come.
    pub fn end_rare_branches(&mut self) {
        self.rare_branches = RareBranches::default();
    }
}
