//! Who belongs to the groups that this peer leads: followers are chosen, replaced when they are gone for good or leave,
//! and made voters when they hold everything (R11; sizes as in `docs/architecture.md`, "Replica groups").

use crate::Peer;
use crate::membership::{CLOCK_NEAR, Member};
use crate::metrics::RareEvent;
use driftmesh_model::{GroupId, Lsn, Micros, PeerId};
use driftmesh_object_store::{Entry, Group, MemberId, Membership};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A peer that had no room for a group is not asked again for so long.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(10_000);
/// So many looks ago, one with each heartbeat, the journal ended where a member must be that has caught up.
const LOOKS_BACK: usize = 4;
/// A group that was whole for so long, and up to twice as long, may replace a follower that has more to do than others;
/// and it has so long for that. Both in times that a silent one is waited for.
const SWAP_AFTER: u64 = 5;
const SWAP_FOR: u64 = 10;
/// A candidate must have been heard within this: longer than members without business wait for a heartbeat.
const HEARD_WITHIN: Micros = Micros::from_millis(2_500);

/// What a leader remembers while it mends one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mending {
    /// The journal's end at each of the last looks, oldest first: whoever holds the first has caught up.
    tails: VecDeque<Lsn>,
    /// Who had no room, and when that was said.
    refused: BTreeMap<PeerId, Micros>,
    /// The voters that the group shall change to, and when that was found, monotonic.
    next: Option<(BTreeSet<MemberId>, Micros)>,
    /// When it is looked next whether a follower should be swapped for another, if nothing has to be mended until then.
    swap_at: Option<Micros>,
    swap: Option<Swap>,
}

/// One follower for another that has less to do. Who comes has caught up before the other goes.
#[derive(Clone, Copy, Debug)]
struct Swap {
    goes: MemberId,
    comes: MemberId,
    since: Micros,
}

/// How whole a group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wholeness {
    /// Members that hold everything, the leader included.
    pub(crate) whole: usize,
    /// How many there shall be.
    pub(crate) wanted: usize,
    /// Whether no change of the members is under way, or due.
    pub(crate) is_settled: bool,
    /// Whether any one member may crash and the group goes on without an operator.
    pub(crate) may_lose_one: bool,
    /// Whether members are wanted that some other peer could be: one that has not said that it has no room.
    pub(crate) may_grow: bool,
}

impl Wholeness {
    /// Whether it has all members that it can have, and all of them hold everything. Where all other peers have refused (R24),
    /// so many do that survive a crash.
    pub(crate) const fn is_whole(self) -> bool {
        self.is_settled && (self.whole >= self.wanted || (self.may_lose_one && !self.may_grow))
    }
}

/// R18: who may be elected must not have a clock that is wrong. Whether it is near, or nothing is known of it yet.
fn may_have_near_clock(member: &Member) -> bool {
    member.clock_offset.is_none_or(|offset| offset.unsigned_abs() <= CLOCK_NEAR.0)
}

impl Peer {
    /// Looks at all groups that this peer leads.
    pub(crate) fn mend_groups(&mut self) {
        let led: Vec<GroupId> = self.led_groups().map(Group::id).collect();
        for id in led {
            self.mend(id);
        }
        let led: BTreeSet<GroupId> = self.led_groups().map(Group::id).collect();
        self.mending.retain(|id, _| led.contains(id));
    }

    /// A peer follows as many groups as it may.
    pub(crate) fn no_room(&mut self, from: PeerId, id: GroupId) {
        let now = self.now.mono;
        if self.led(id).is_some() {
            self.metrics.note(RareEvent::NoRoom);
            self.mending.entry(id).or_default().refused.insert(from, now);
        }
    }

    fn mend(&mut self, id: GroupId) {
        let Some(group) = self.led(id) else { return };
        let tail = group.tail();
        if group.is_retired() || !group.consensus().may_change() {
            return;
        }
        self.even_out(id);
        let Some(group) = self.led(id) else { return };
        let target = self.target_of(group);
        let present = group.consensus().membership();
        let change = target.filter(|target| target != present);
        let now = self.now.mono;
        let mending = self.mending.entry(id).or_default();
        // R24: peers come anew with each start.
        mending.refused.retain(|_, said| now.since(*said) < ASK_AGAIN_AFTER);
        let tails = &mut mending.tails;
        tails.push_back(tail);
        if tails.len() > LOOKS_BACK {
            tails.pop_front();
        }
        if let Some(target) = change.filter(|target| self.may_count(id, target)) {
            self.metrics.note(RareEvent::MembersChanged);
            if self.led(id).is_some_and(|group| group.consensus().is_alone()) {
                // R8: what was promised while nobody else could ever lead the group lies below this end.
                let until = self.clock.now(self.now.wall);
                self.journal_of(id, Entry::Window { until });
            }
            // It may not be possible just now; the next look tries again.
            let _ = self.with_group(id, |group, now| group.propose(now, target));
        }
    }

    /// R11: whether a majority of the voters to be was heard since they were found to be the right ones. Who died since it
    /// was heard last would else be counted on, and a change of voters that begins cannot be taken back: the group would
    /// be lost though the former voters live.
    fn may_count(&mut self, id: GroupId, target: &Membership) -> bool {
        let now = self.now.mono;
        let Some(group) = self.group_of(id) else { return false };
        let consensus = group.consensus();
        if target.voters == consensus.membership().voters {
            return true;
        }
        let known = self.mending.get(&id).and_then(|mending| mending.next.as_ref());
        let since = known.filter(|(voters, _)| *voters == target.voters).map_or(now, |(_, since)| *since);
        let heard = |voter: &MemberId| {
            *voter == consensus.me()
                || consensus.follower(voter, now).is_some_and(|(_, silent)| silent < now.since(since))
        };
        let may = target.is_majority(heard);
        self.mending.entry(id).or_default().next = (!may).then(|| (target.voters.clone(), since));
        may
    }

    /// How many followers a group of this peer shall have where there are peers enough.
    fn followers_wanted(&self, group: &Group) -> usize {
        if group.id() == self.group.id() {
            return self.config.replicas;
        }
        // In place of another leader: as many as it had.
        group.consensus().membership().members().len().saturating_sub(1)
    }

    /// The other peers that could be followers, if they have room.
    fn live_members(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.coming_members().filter(|(_, member)| member.clock_offset.is_some())
    }

    /// Those, and who has just come: nobody has chosen it yet, but a group that lacks a member is not whole beside it.
    fn coming_members(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        let may = |member: &Member| member.connected && member.draining == 0 && may_have_near_clock(member);
        self.members.iter().filter(move |(_, member)| may(member))
    }

    /// Whether a member of a group can be counted on: it answers, or has not been silent for long.
    fn is_alive(&self, group: &Group, member: &MemberId) -> bool {
        // One that is not known any more may only be out of reach: its silence counts.
        let stays = |known: &Member| known.incarnation == member.incarnation && known.draining == 0;
        let stays = self.members.get(&member.peer).is_none_or(stays);
        stays && self.is_heard(group, member) && !self.has_refused(group.id(), &member.peer)
    }

    fn is_heard(&self, group: &Group, member: &MemberId) -> bool {
        let silent = group.consensus().follower(member, self.now.mono).map_or(Micros(0), |(_, silent)| silent);
        silent < self.config.replace_after
    }

    /// Whether a peer said lately that it has no room for a group.
    fn has_refused(&self, group: GroupId, peer: &PeerId) -> bool {
        let said = self.mending.get(&group).and_then(|mending| mending.refused.get(peer));
        said.is_some_and(|at| self.now.mono.since(*at) < ASK_AGAIN_AFTER)
    }

    pub(crate) fn has_caught_up(&self, group: &Group, member: &MemberId) -> bool {
        let before =
            self.mending.get(&group.id()).and_then(|mending| mending.tails.front().copied()).unwrap_or_default();
        let consensus = group.consensus();
        consensus.follower(member, self.now.mono).is_some_and(|(held, _)| held >= before && held > Lsn::ZERO)
            && !consensus.needs_copy(member)
    }

    /// Who shall belong next: a step at a time, and nobody goes before who takes its place has caught up.
    fn target_of(&self, group: &Group) -> Option<Membership> {
        let me = self.me();
        let present = group.consensus().membership();
        let others: Vec<MemberId> = present.members().into_iter().filter(|member| *member != me).collect();
        let (mut alive, mut gone): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|member| self.is_alive(group, member));
        let swap = self.mending.get(&group.id()).and_then(|mending| mending.swap);
        if let Some(swap) = swap {
            alive.retain(|member| *member != swap.goes);
        }
        // Who was heard last may be back first.
        let silence = |member: &MemberId| group.consensus().follower(member, self.now.mono).map(|(_, silent)| silent);
        gone.sort_by_key(silence);
        let wanted = self.followers_wanted(group);
        let mut chosen = alive;
        // Voters stay first; a member is never replaced because a nearer peer joined.
        chosen.sort_by_key(|member| !present.is_voter(member));
        chosen.truncate(wanted);
        let missing = wanted.min(self.live_members().count()).saturating_sub(chosen.len());
        let comes = swap.map(|swap| swap.comes).filter(|comes| missing > 0 && !present.contains(comes));
        let added = comes.map_or_else(|| self.candidates(group, &chosen, missing), |comes| vec![comes]);
        if !added.is_empty() {
            let mut target = present.clone();
            target.learners.extend(added.into_iter().map(|member| (member, false)));
            return Some(target);
        }
        Some(self.settled_membership(group, &chosen, &gone))
    }

    /// The membership with these followers, as far as they have caught up.
    fn settled_membership(&self, group: &Group, chosen: &[MemberId], gone: &[MemberId]) -> Membership {
        let me = self.me();
        let present = group.consensus().membership();
        let ready: BTreeSet<MemberId> =
            chosen.iter().filter(|member| self.has_caught_up(group, member)).copied().collect();
        let all_ready = ready.len() == chosen.len();
        let wanted = self.followers_wanted(group);
        // Who is gone stays until somebody can take its place; who leaves by its own will need not.
        let leaves = |member: &&MemberId| {
            let is_it =
                |known: &Member| known.incarnation == member.incarnation && known.draining != 0 && known.connected;
            self.members.get(&member.peer).is_some_and(is_it)
        };
        let room = wanted.saturating_sub(chosen.len());
        let kept: Vec<MemberId> = if all_ready {
            gone.iter().filter(|member| !leaves(member) && present.is_voter(member)).take(room).copied().collect()
        } else {
            gone.to_vec()
        };
        let total = 1 + chosen.len() + kept.len();
        let most = total.min(wanted + 1);
        let count = if most.is_multiple_of(2) { most - 1 } else { most };
        let mut voters = BTreeSet::from([me]);
        let old = chosen.iter().filter(|member| present.is_voter(member) && ready.contains(member));
        let new = chosen.iter().filter(|member| !present.is_voter(member) && ready.contains(member));
        // R11: who leaves and still answers stays until nobody silent votes: a change of voters takes a majority of both
        // sets, and of two that hardly had one to spare the next crash would leave none.
        let answers = |member: &&MemberId| self.is_heard(group, member) && self.has_caught_up(group, member);
        let leaving: Vec<MemberId> =
            gone.iter().filter(leaves).filter(|member| present.is_voter(member)).filter(answers).copied().collect();
        let silent = kept.iter().filter(|member| present.is_voter(member));
        let waiting = chosen.iter().filter(|member| present.is_voter(member));
        for voter in old.chain(new).chain(&leaving).chain(silent).chain(waiting) {
            if voters.len() < count {
                voters.insert(*voter);
            }
        }
        if !all_ready || voters.len().is_multiple_of(2) {
            // Not yet: who votes now goes on to.
            voters.clone_from(&present.voters);
        }
        let is_replaced = all_ready && leaving.iter().any(|member| voters.contains(member));
        let kept = if is_replaced { Vec::new() } else { kept };
        let rest = chosen.iter().chain(&kept).filter(|member| !voters.contains(member));
        let learners = rest.map(|member| {
            let in_sync = present.learners.get(member).copied().unwrap_or(false);
            (*member, ready.contains(member) || (in_sync && !gone.contains(member)))
        });
        Membership { voters: voters.clone(), incoming: None, learners: learners.collect() }
    }

    /// Begins to replace a follower that has much to do by a peer that has less, or one that would fail together with others by
    /// one that would not; and ends what came to nothing. A mesh whose peers start one after the other would else stay as it
    /// was begun: the first follow everybody, the last nobody, and the first zone holds all copies.
    fn even_out(&mut self, id: GroupId) {
        let now = self.now.mono;
        let Some(group) = self.led(id).filter(|group| group.id() == self.group.id()) else { return };
        let present = group.consensus().membership();
        let (swap_at, swap) = self.mending.get(&id).map_or((None, None), |mending| (mending.swap_at, mending.swap));
        let goes_on = |swap: &Swap| {
            let is_it = |(peer, known): (&PeerId, &Member)| {
                (*peer, known.incarnation) == (swap.comes.peer, swap.comes.incarnation)
            };
            self.live_members().any(is_it)
                && !self.has_refused(id, &swap.comes.peer)
                && present.contains(&swap.goes)
                && now.since(swap.since) < Micros(self.config.replace_after.0 * SWAP_FOR)
        };
        let swap = swap.filter(goes_on);
        let is_whole = swap.is_none() && self.wholeness(group).is_whole();
        let is_time = is_whole && swap_at.is_some_and(|at| now >= at);
        let swap = swap.or_else(|| if is_time { self.swap_of(group) } else { None });
        let swap_at = swap_at.filter(|_| is_whole && !is_time).or_else(|| {
            // By chance: not all leaders at once do what one of them should.
            let wait = self.config.replace_after.0.saturating_mul(SWAP_AFTER);
            is_whole.then(|| now.plus(Micros(wait + self.draw_seed() % wait.max(1))))
        });
        let mending = self.mending.entry(id).or_default();
        (mending.swap_at, mending.swap) = (swap_at, swap);
    }

    /// Which follower may go, and who takes its place.
    fn swap_of(&self, group: &Group) -> Option<Swap> {
        let others: Vec<MemberId> =
            group.consensus().membership().members().into_iter().filter(|member| *member != self.me()).collect();
        self.spreading_swap(group, &others).or_else(|| self.evening_swap(group, others))
    }

    /// One that would fail together with others of the group, for somebody who would not: who came later may be better than
    /// those that there were to choose from.
    fn spreading_swap(&self, group: &Group, others: &[MemberId]) -> Option<Swap> {
        others.iter().find_map(|goes| {
            let stay: Vec<MemberId> = others.iter().filter(|member| *member != goes).copied().collect();
            if !self.shares_domain(goes, &stay) {
                return None;
            }
            let comes = *self.candidates(group, &stay, 1).first()?;
            let is_better = !self.shares_domain(&comes, &stay);
            is_better.then_some(Swap { goes: *goes, comes, since: self.now.mono })
        })
    }

    /// One that has much to do for somebody with so much less that both are nearer to each other after it, and who shares no
    /// more of what may fail.
    fn evening_swap(&self, group: &Group, others: Vec<MemberId>) -> Option<Swap> {
        let load = |member: &MemberId| self.members.get(&member.peer).map(|known| known.followed);
        let goes = *others.iter().max_by_key(|member| load(member))?;
        let stay: Vec<MemberId> = others.into_iter().filter(|member| *member != goes).collect();
        let comes = *self.candidates(group, &stay, 1).first()?;
        let evens_out = load(&comes)?.saturating_add(2) <= load(&goes)?;
        let shares_more = self.shares_domain(&comes, &stay) && !self.shares_domain(&goes, &stay);
        (evens_out && !shares_more).then_some(Swap { goes, comes, since: self.now.mono })
    }

    /// Whether a peer fails together with this one, or with one of these.
    fn shares_domain(&self, member: &MemberId, with: &[MemberId]) -> bool {
        let domain = |member: &MemberId| self.members.get(&member.peer).map(|known| known.domain);
        let of_member = domain(member);
        of_member == Some(self.config.domain) || with.iter().any(|other| domain(other) == of_member)
    }

    /// Peers that shall follow a group too: of other failure domains first, then who follows the fewest, then by the
    /// distance of their ids.
    fn candidates(&self, group: &Group, chosen: &[MemberId], count: usize) -> Vec<MemberId> {
        if count == 0 {
            return Vec::new();
        }
        let now = self.now.mono;
        let present = group.consensus().membership();
        let own = self.config.peer;
        let mut candidates: Vec<_> = self
            .live_members()
            .filter(|(peer, member)| now.since(member.heard_at) < HEARD_WITHIN && !self.has_refused(group.id(), peer))
            .map(|(peer, member)| {
                let distance: [u8; 32] = std::array::from_fn(|at| peer.as_bytes()[at] ^ own.as_bytes()[at]);
                let candidate = MemberId { peer: *peer, incarnation: member.incarnation };
                ((self.shares_domain(&candidate, chosen), member.followed, distance), candidate)
            })
            .filter(|(_, member)| !present.contains(member))
            .collect();
        candidates.sort();
        candidates.into_iter().take(count).map(|(_, member)| member).collect()
    }

    /// Whether another peer in reach holds all of what this peer's group owns.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        let others = self.group.consensus().membership().members().into_iter().filter(|member| *member != self.me());
        let mut holding = others.filter(|member| self.is_connected(&member.peer));
        holding.any(|member| self.has_caught_up(&self.group, &member))
    }

    /// How whole a group is that this peer leads.
    pub(crate) fn wholeness(&self, group: &Group) -> Wholeness {
        let consensus = group.consensus();
        let present = consensus.membership();
        let me = self.me();
        // Who is out of reach may be gone, and is replaced only when it stays so.
        let holds_all = |member: &MemberId| {
            self.is_connected(&member.peer) && self.is_alive(group, member) && self.has_caught_up(group, member)
        };
        let whole: BTreeSet<MemberId> =
            present.members().into_iter().filter(|member| *member == me || holds_all(member)).collect();
        let may_change = consensus.may_change();
        let is_settled = may_change && self.target_of(group).is_none_or(|target| target == *present);
        let survives = |lost: &MemberId| present.is_majority(|voter| voter != lost && whole.contains(voter));
        let may_lose_one = may_change && present.voters.len() > 1 && present.members().iter().all(survives);
        let wanted = 1 + self.followers_wanted(group).min(self.coming_members().count());
        let is_open = |peer: &PeerId, member: &Member| {
            let belongs = present.contains(&MemberId { peer: *peer, incarnation: member.incarnation });
            !belongs && !self.has_refused(group.id(), peer)
        };
        let may_grow = whole.len() < wanted && self.coming_members().any(|(peer, member)| is_open(peer, member));
        Wholeness { whole: whole.len(), wanted, is_settled, may_lose_one, may_grow }
    }
}
