//! The ledger against the final state: every commit that is told stable must be in both of its players, every one that is
//! told lost or aborted in neither, and nothing else.
//!
//! It refuses to talk to peers, and to believe a fate: what counts is what is there.

use crate::fates::Fate;
use crate::ledger::{ANYBODY, Account, Entry, Ledger, Named};
use crate::places::index;
use crate::world::{GOLD_AT_FIRST, ITEMS_AT_FIRST, mark};
use driftmesh::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

/// Trades of one player that may or may not be in him, most that are tried in all combinations.
const CANDIDATES_MAX: usize = 20;
/// Faults of one kind that are told in full.
const EXAMPLES_MAX: usize = 3;

/// How a player stands at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PlayerEnd {
    /// His trades.
    pub(crate) trades: u64,
    /// Their marks, added up.
    pub(crate) sum: u64,
    /// His gold.
    pub(crate) gold: u64,
    /// How many items he has.
    pub(crate) items: u64,
}

/// What the comparison came to. The last four counts must be 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Verdict {
    /// Commits that were answered, and told lost later.
    pub(crate) lost: u64,
    /// Trades without an answer.
    pub(crate) unanswered: u64,
    /// Those of them that committed.
    pub(crate) unanswered_committed: u64,
    /// Commits that are not there, and whose callers believe them stable; and those that were told stable once and lost
    /// later.
    pub(crate) lost_untold: u64,
    /// Trades that are there, though they were told lost or aborted.
    pub(crate) lost_but_present: u64,
    /// Commits of which nobody could tell what became of them.
    pub(crate) unknown: u64,
    /// Players whom no set of trades explains, trades that only one of their two players knows, and receipts that two
    /// commits share.
    pub(crate) unaccounted: u64,
    /// The faults, for people.
    pub(crate) told: Vec<String>,
}

/// Why a trade may or may not be in a player.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doubt {
    /// Nothing was said of its outcome.
    Open,
    /// It was told lost or aborted, so it must not be there.
    Denied,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u64,
    doubt: Doubt,
}

/// What a player has beyond the stable commits; both numbers wrap.
#[derive(Clone, Copy, Debug)]
struct Beyond {
    trades: u64,
    sum: u64,
}

/// A comparison that is going on.
struct Judge<'a> {
    verdict: Verdict,
    ledger: &'a Ledger,
    world: &'a [ObjectId],
    first: First<'a>,
    expected: Vec<Account>,
    /// The trades that may or may not be in each player.
    candidates: BTreeMap<u32, Vec<Candidate>>,
    /// Those that may or may not be in any player.
    of_anybody: Vec<Candidate>,
    /// Trades in doubt that are there, with the players who know them.
    present: BTreeMap<u64, Vec<u32>>,
    /// Trades that should be there and are not.
    missing: BTreeSet<u64>,
}

/// Gold and items of the players at first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum First<'a> {
    /// The same of each.
    Alike,
    /// Of each in turn.
    Each(&'a [(u64, u64)]),
}

impl First<'_> {
    fn of(&self, number: u32) -> (u64, u64) {
        match self {
            Self::Alike => (GOLD_AT_FIRST, ITEMS_AT_FIRST),
            Self::Each(accounts) => accounts.get(index(number)).copied().unwrap_or_default(),
        }
    }
}

/// Compares. `ends` are the players that the audit met.
pub(crate) fn judge(
    ledger: &mut Ledger,
    world: &[ObjectId],
    first: First<'_>,
    ends: &BTreeMap<ObjectId, PlayerEnd>,
) -> Verdict {
    let shared = ledger.shared_receipts();
    let mut judge = Judge::new(ledger, world, first);
    judge.count_fates();
    judge.fault(shared, |count| format!("{count} receipts belong to more than one commit"));
    let unexplained = judge.explain_players(ends);
    judge.explain_missing(&unexplained);
    judge.finish()
}

/// Compares where nobody keeps to any protocol: how many commits are gone, and whose gold or trades do not follow from
/// what was answered. Which trades it were is not looked for.
pub(crate) fn judge_by_counts(ledger: &Ledger, world: &[ObjectId], ends: &BTreeMap<ObjectId, PlayerEnd>) -> Verdict {
    let mut verdict = Verdict { unanswered: ledger.open().len() as u64, ..Verdict::default() };
    let mut missing = 0;
    for (expected, player) in ledger.stable_accounts().iter().zip(world) {
        let end = ends.get(player).copied().unwrap_or_default();
        missing += expected.trades.saturating_sub(end.trades);
        let gold = GOLD_AT_FIRST.checked_add_signed(expected.gold);
        verdict.unaccounted += u64::from((Some(end.gold), end.sum) != (gold, expected.sum));
    }
    // Each commit is missed by both of its players.
    verdict.lost_untold = missing.div_ceil(2);
    verdict
}

impl<'a> Judge<'a> {
    fn new(ledger: &'a Ledger, world: &'a [ObjectId], first: First<'a>) -> Self {
        let mut candidates: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
        let mut of_anybody = Vec::new();
        let mut doubt = |trade: &Named, doubt| {
            if trade.seller == ANYBODY && doubt == Doubt::Open {
                of_anybody.push(Candidate { id: trade.id, doubt });
            }
            for player in trade.players() {
                candidates.entry(player).or_default().push(Candidate { id: trade.id, doubt });
            }
        };
        ledger.open().iter().for_each(|trade| doubt(trade, Doubt::Open));
        ledger.told_aborted().iter().for_each(|trade| doubt(trade, Doubt::Denied));
        for (_, entry, fate) in ledger.entries() {
            match fate {
                Fate::Stable => {}
                Fate::Lost => doubt(&entry.trade, Doubt::Denied),
                Fate::Unknown => doubt(&entry.trade, Doubt::Open),
            }
        }
        let expected = ledger.stable_accounts();
        let (present, missing) = (BTreeMap::new(), BTreeSet::new());
        Self { verdict: Verdict::default(), ledger, world, first, expected, candidates, of_anybody, present, missing }
    }

    fn fault(&mut self, count: u64, told: impl FnOnce(u64) -> String) {
        if count > 0 {
            self.verdict.unaccounted += count;
            if self.verdict.told.len() < EXAMPLES_MAX {
                self.verdict.told.push(told(count));
            }
        }
    }

    fn count_fates(&mut self) {
        for (_, entry, fate) in self.ledger.entries() {
            match fate {
                Fate::Stable => {}
                Fate::Lost => {
                    self.verdict.lost += 1;
                    // Whoever was told stable does not ask again.
                    self.verdict.lost_untold += u64::from(entry.told_stable);
                }
                Fate::Unknown => self.verdict.unknown += 1,
            }
        }
        self.verdict.unanswered = self.ledger.open().len() as u64;
    }

    /// Finds for each player which trades in doubt he has. Returns those whom these do not explain.
    fn explain_players(&mut self, ends: &BTreeMap<ObjectId, PlayerEnd>) -> Vec<(u32, Beyond)> {
        let mut unexplained = Vec::new();
        for (number, object) in (0_u32..).zip(self.world) {
            let expected = self.expected[index(number)];
            let end = ends.get(object).copied().unwrap_or_default();
            let beyond =
                Beyond { trades: end.trades.wrapping_sub(expected.trades), sum: end.sum.wrapping_sub(expected.sum) };
            let found = self.explanation(number, beyond);
            match &found {
                Some(trades) => trades.iter().for_each(|id| self.present.entry(*id).or_default().push(number)),
                None => unexplained.push((number, beyond)),
            }
            if ends.contains_key(object) && found.is_some_and(|trades| trades.is_empty()) {
                self.check_belongings(number, &expected, &end);
            }
        }
        unexplained
    }

    /// Which trades in doubt make up what a player has beyond the stable ones: without those that must not be there, if
    /// that can be.
    fn explanation(&self, player: u32, beyond: Beyond) -> Option<Vec<u64>> {
        let candidates = self.candidates.get(&player).map_or(&[][..], Vec::as_slice);
        let of_others = self.of_anybody.iter().filter(|one| candidates.iter().all(|own| own.id != one.id));
        let candidates = || candidates.iter().chain(of_others.clone());
        let open: Vec<u64> = candidates().filter(|one| one.doubt == Doubt::Open).map(|one| one.id).collect();
        let all = || candidates().map(|one| one.id).collect::<Vec<_>>();
        subset(&open, beyond).or_else(|| subset(&all(), beyond))
    }

    /// The effects of a trade whose outcome was not answered are unknown, so this is for players without such.
    fn check_belongings(&mut self, number: u32, expected: &Account, end: &PlayerEnd) {
        let should = |first: u64, gained: i64| first.checked_add_signed(gained);
        let (gold, items) = self.first.of(number);
        let (gold, items) = (should(gold, expected.gold), should(items, expected.items));
        if (gold, items) != (Some(end.gold), Some(end.items)) {
            let player = self.world[index(number)];
            self.fault(1, |_| {
                format!(
                    "player {player} has {} gold and {} items, by his trades it should be {gold:?} and {items:?}",
                    end.gold, end.items
                )
            });
        }
    }

    /// Looks for stable commits that are not there. A crash takes the last ones, so the last of each player are tried.
    fn explain_missing(&mut self, unexplained: &[(u32, Beyond)]) {
        let mut stable: BTreeMap<u32, Vec<&Entry>> =
            unexplained.iter().map(|(player, _)| (*player, Vec::new())).collect();
        if stable.is_empty() {
            return;
        }
        for (_, entry, _) in self.ledger.entries().filter(|(_, _, fate)| *fate == Fate::Stable) {
            for player in entry.trade.players() {
                if let Some(entries) = stable.get_mut(&player) {
                    entries.push(entry);
                }
            }
        }
        for (player, beyond) in unexplained {
            let mut entries = stable.remove(player).unwrap_or_default();
            entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.at));
            if !self.find_missing(*player, *beyond, &entries) {
                self.count_unexplained(*player, *beyond);
            }
        }
    }

    fn find_missing(&mut self, player: u32, beyond: Beyond, newest_first: &[&Entry]) -> bool {
        let mut without = beyond;
        for (count, entry) in (1..).zip(newest_first) {
            without.trades = without.trades.wrapping_add(1);
            without.sum = without.sum.wrapping_add(mark(entry.trade.id));
            if let Some(trades) = self.explanation(player, without) {
                trades.iter().for_each(|id| self.present.entry(*id).or_default().push(player));
                self.missing.extend(newest_first[..count].iter().map(|entry| entry.trade.id));
                return true;
            }
        }
        let is_it =
            |entry: &&&Entry| beyond.trades == u64::MAX && beyond.sum == 0_u64.wrapping_sub(mark(entry.trade.id));
        let Some(entry) = newest_first.iter().find(is_it) else { return false };
        self.missing.insert(entry.trade.id);
        true
    }

    fn count_unexplained(&mut self, player: u32, beyond: Beyond) {
        let (object, more) = (self.world[index(player)], beyond.trades.cast_signed());
        self.fault(1, |_| {
            format!("player {object}: {more} trades more than the stable ones, and no set of trades explains his sum")
        });
        // At least so many are gone, and each is missed by both players; rounded up.
        self.verdict.lost_untold += more.min(0).unsigned_abs().div_ceil(2);
    }

    fn finish(mut self) -> Verdict {
        let open: BTreeMap<u64, &Named> = self.ledger.open().iter().map(|trade| (trade.id, trade)).collect();
        let mut named: BTreeMap<u64, &Named> = open.clone();
        named.extend(self.ledger.told_aborted().iter().map(|trade| (trade.id, trade)));
        let in_doubt = self.ledger.entries().filter(|(_, _, fate)| *fate != Fate::Stable);
        named.extend(in_doubt.map(|(_, entry, _)| (entry.trade.id, &entry.trade)));
        let denied: BTreeMap<u64, Doubt> =
            self.candidates.values().flatten().map(|candidate| (candidate.id, candidate.doubt)).collect();
        let mut halves = 0;
        for (id, players) in &self.present {
            match denied.get(id) {
                Some(Doubt::Denied) => self.verdict.lost_but_present += 1,
                Some(Doubt::Open) | None => self.verdict.unanswered_committed += u64::from(open.contains_key(id)),
            }
            halves += u64::from(!named.get(id).is_some_and(|trade| trade.is_in(players.len())));
        }
        self.fault(halves, |count| format!("{count} trades are in one of their two players only"));
        self.verdict.lost_untold += self.missing.len() as u64;
        let Verdict { lost_untold, lost_but_present, unknown, .. } = self.verdict;
        for (count, what) in [
            (lost_untold, "commits are gone, and their callers believe them stable"),
            (lost_but_present, "trades are there, though they were told lost or aborted"),
            (unknown, "commits of which nobody can tell what became of them"),
        ] {
            if count > 0 {
                self.verdict.told.push(format!("{count} {what}"));
            }
        }
        self.verdict
    }
}

/// Which of these trades make up the difference; `None` when no combination does, or there are too many to try.
fn subset(trades: &[u64], beyond: Beyond) -> Option<Vec<u64>> {
    let count = usize::try_from(beyond.trades).ok().filter(|count| *count <= trades.len())?;
    if count == 0 {
        return (beyond.sum == 0).then(Vec::new);
    }
    if trades.len() > CANDIDATES_MAX {
        return None;
    }
    let mut chosen = Vec::with_capacity(count);
    choose(trades, count, beyond.sum, &mut chosen).then_some(chosen)
}

fn choose(trades: &[u64], count: usize, sum: u64, chosen: &mut Vec<u64>) -> bool {
    if count == 0 {
        return sum == 0;
    }
    for (place, trade) in trades.iter().enumerate().take((trades.len() + 1).saturating_sub(count)) {
        chosen.push(*trade);
        if choose(&trades[place + 1..], count - 1, sum.wrapping_sub(mark(*trade)), chosen) {
            return true;
        }
        chosen.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::{commit, decide, trade};

    fn world() -> Vec<ObjectId> {
        (0..2).map(ObjectId::from_u128).collect()
    }

    /// A ledger of commits 1 to `last` between players 0 and 1, of which those from `lost` on are told lost.
    fn ledger(last: u64, lost: u64) -> Ledger {
        let mut ledger = Ledger::new(2);
        for lsn in 1..=last {
            ledger.committed(0, trade(lsn), &commit(1, lsn), u32::try_from(lsn).unwrap());
        }
        decide(&mut ledger, lost);
        ledger
    }

    /// Both players after these trades, each of which sold an item for 3 gold.
    fn ends(trades: &[u64]) -> BTreeMap<ObjectId, PlayerEnd> {
        let sum = trades.iter().fold(0_u64, |sum, id| sum.wrapping_add(mark(*id)));
        let count = trades.len() as u64;
        let end = |gold, items| PlayerEnd { trades: count, sum, gold, items };
        [
            (ObjectId::from_u128(0), end(100 - 3 * count, 2 + count)),
            (ObjectId::from_u128(1), end(100 + 3 * count, 2_u64.saturating_sub(count))),
        ]
        .into()
    }

    fn judged(ledger: &mut Ledger, ends: &BTreeMap<ObjectId, PlayerEnd>) -> Verdict {
        judge(ledger, &world(), First::Alike, ends)
    }

    fn zeros(verdict: &Verdict) -> [u64; 4] {
        [verdict.lost_untold, verdict.lost_but_present, verdict.unknown, verdict.unaccounted]
    }

    #[test]
    fn what_is_stable_is_there_and_what_is_lost_is_not() {
        let verdict = judged(&mut ledger(2, 3), &ends(&[1, 2]));
        assert_eq!((zeros(&verdict), verdict.lost, verdict.told.len()), ([0; 4], 0, 0));
        let verdict = judged(&mut ledger(4, 3), &ends(&[1, 2]));
        assert_eq!((zeros(&verdict), verdict.lost, verdict.told.len()), ([0; 4], 2, 0));
    }

    #[test]
    fn a_loss_that_nobody_was_told_of_is_found() {
        for (there, gone) in [(&[1][..], 1), (&[][..], 2), (&[2][..], 1)] {
            let verdict = judged(&mut ledger(2, 3), &ends(there));
            assert_eq!(zeros(&verdict), [gone, 0, 0, 0], "{there:?}");
            assert!(verdict.told[0].contains("believe them stable"));
        }
    }

    #[test]
    fn a_commit_that_was_told_lost_and_is_there_is_found() {
        let verdict = judged(&mut ledger(2, 2), &ends(&[1, 2]));
        assert_eq!((zeros(&verdict), verdict.lost), ([0, 1, 0, 0], 1));
        assert!(verdict.told[0].contains("told lost"));
    }

    #[test]
    fn an_aborted_trade_that_is_there_is_found() {
        let mut ledger = ledger(1, 2);
        ledger.aborted(trade(9));
        assert_eq!(zeros(&judged(&mut ledger, &ends(&[1]))), [0; 4]);
        assert_eq!(zeros(&judged(&mut ledger, &ends(&[1, 9]))), [0, 1, 0, 0]);
    }

    #[test]
    fn a_commit_of_unknown_fate_is_found() {
        let mut ledger = Ledger::new(2);
        ledger.committed(0, trade(1), &commit(1, 1), 0);
        for there in [&[][..], &[1]] {
            assert_eq!(zeros(&judged(&mut ledger, &ends(there))), [0, 0, 1, 0]);
        }
    }

    #[test]
    fn told_stable_and_then_lost_is_a_loss_untold() {
        let mut ledger = Ledger::new(2);
        let told = crate::records::Commit { stable: true, ..commit(1, 1) };
        ledger.committed(0, trade(1), &told, 0);
        decide(&mut ledger, 1);
        assert_eq!(zeros(&judged(&mut ledger, &ends(&[]))), [1, 0, 0, 0]);
    }

    #[test]
    fn trades_without_an_answer_may_be_there_or_not() {
        let mut ledger = ledger(1, 2);
        (20..24).for_each(|id| ledger.unanswered(trade(id)));
        for (there, committed) in [(&[1][..], 0), (&[1, 21], 1), (&[1, 20, 21, 23], 3)] {
            let verdict = judged(&mut ledger, &ends(there));
            let counts = (verdict.unanswered, verdict.unanswered_committed);
            assert_eq!((zeros(&verdict), counts), ([0; 4], (4, committed)), "{there:?}");
        }
    }

    #[test]
    fn half_a_trade_is_found() {
        let mut ledger = ledger(1, 2);
        ledger.unanswered(trade(20));
        let mut torn = ends(&[1]);
        torn.insert(ObjectId::from_u128(0), ends(&[1, 20])[&ObjectId::from_u128(0)]);
        assert_eq!(zeros(&judged(&mut ledger, &torn)), [0, 0, 0, 1]);
    }

    #[test]
    fn a_trade_that_was_applied_twice_is_found() {
        let verdict = judged(&mut ledger(2, 3), &ends(&[1, 2, 2]));
        assert_eq!(zeros(&verdict), [0, 0, 0, 2]);
    }

    #[test]
    fn belongings_that_do_not_follow_from_the_trades_are_found() {
        let mut ends = ends(&[1]);
        for end in ends.values_mut() {
            end.gold = 100;
        }
        assert_eq!(zeros(&judged(&mut ledger(1, 2), &ends)), [0, 0, 0, 2]);
    }

    #[test]
    fn a_player_who_is_gone_takes_his_commits_with_him() {
        let mut ends = ends(&[1, 2]);
        ends.remove(&ObjectId::from_u128(1));
        assert_eq!(zeros(&judged(&mut ledger(2, 3), &ends)), [2, 0, 0, 0]);
    }

    #[test]
    fn combinations_are_found_or_refused() {
        let sum = |ids: &[u64]| Beyond {
            trades: ids.len() as u64,
            sum: ids.iter().map(|id| mark(*id)).fold(0, u64::wrapping_add),
        };
        assert_eq!(subset(&[1, 2, 3, 4], sum(&[2, 4])), Some(vec![2, 4]));
        assert_eq!(subset(&[1, 2, 3], sum(&[2, 4])), None);
        assert_eq!(subset(&[], sum(&[])), Some(vec![]));
        assert_eq!(subset(&[1], Beyond { trades: u64::MAX, sum: 0 }), None);
        let many: Vec<u64> = (0..21).collect();
        assert_eq!(subset(&many, sum(&[3])), None);
        assert_eq!(subset(&many, sum(&[])), Some(vec![]));
    }
}
