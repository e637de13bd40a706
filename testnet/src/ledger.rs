//! What the bots were told, kept outside of all peers: every receipt with what its commit did, and every trade that
//! ended without one.
//!
//! It knows nothing of the mesh but receipts and fates. By R7 a group loses the end of a term's journal and nothing
//! else, so a few questions decide the fates of millions of commits: the highest first, and where that is lost, halves.
//! It refuses to forget a commit that is not told stable.

use crate::fates::Fate;
use crate::places::index;
use crate::records::Commit;
use crate::world::mark;
use driftmesh::{GroupId, Lsn, Receipt, Term};
use std::collections::{BTreeMap, VecDeque};

/// Commits that are kept one by one, about 40 bytes each. Beyond, those that are stable are added up.
const ENTRIES_MAX: usize = 4_000_000;
/// The same for those that are certain from the beginning.
const CERTAIN_MAX: usize = 1_000_000;
/// Trades without effect that are kept, the newest. One that has an effect though it is not kept any more leaves a player
/// whom nothing explains: it is found, and only not named.
const ABORTED_MAX: usize = 1_000_000;

/// Instead of a second player: there is none.
pub(crate) const NOBODY: u32 = u32::MAX;
/// Instead of a second player: it may have been anybody, or nobody.
pub(crate) const ANYBODY: u32 = u32::MAX - 1;

/// The players of a trade, or of what else is in the ledger: one or two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    /// The trade's number.
    pub(crate) id: u64,
    /// Who pays, or acts alone.
    pub(crate) buyer: u32,
    /// Who has an item to sell; or [`NOBODY`] or [`ANYBODY`].
    pub(crate) seller: u32,
}

impl Named {
    /// Those who are known.
    pub(crate) fn players(&self) -> impl Iterator<Item = u32> + use<> {
        [self.buyer, self.seller].into_iter().filter(|player| *player < ANYBODY)
    }

    /// Whether a trade that took effect is in so many players.
    pub(crate) const fn is_in(&self, players: usize) -> bool {
        match self.seller {
            NOBODY => players == 1,
            ANYBODY => players == 1 || players == 2,
            _ => players == 2,
        }
    }
}

/// A commit that was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The trade.
    pub(crate) trade: Named,
    /// Its position in the journal.
    pub(crate) lsn: Lsn,
    /// When it was answered: tenths of milliseconds since the bots began.
    pub(crate) at: u32,
    /// What the buyer gained in gold.
    pub(crate) gold: i16,
    /// Whether he gained an item.
    pub(crate) sold: bool,
    /// Whether it was told stable with its answer.
    pub(crate) told_stable: bool,
}

/// What the trades of one player come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Account {
    /// How many.
    pub(crate) trades: u64,
    /// Their marks, added up.
    pub(crate) sum: u64,
    /// Gold gained.
    pub(crate) gold: i64,
    /// Items gained.
    pub(crate) items: i64,
}

/// The commits of one group in one term, as far as they were answered.
#[derive(Debug)]
struct Journal {
    /// One of the receipts; the others differ in their positions.
    sample: Receipt,
    /// Which peer answered last: the leader of this term.
    peer: usize,
    /// By lsn, as far as `sorted` says; the first `stable` are stable, those from `lost` on are lost.
    entries: Vec<Entry>,
    sorted: bool,
    stable: usize,
    lost: Option<usize>,
    /// How many there were at the last look: these had time to become stable.
    seen: usize,
}

/// A question for the fate of one commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    key: (GroupId, Term),
    place: usize,
    /// Its receipt.
    pub(crate) receipt: Receipt,
}

/// The ledger.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    journals: BTreeMap<(GroupId, Term), Journal>,
    /// Of stable commits that are not kept one by one any more.
    settled: Vec<Account>,
    entries: usize,
    /// Commits that were told stable by whoever was asked again: their receipts are of no single commit.
    certain: Vec<Entry>,
    /// Trades whose orders got no answer, or one that says nothing of the outcome. All are kept: any of them may be in a
    /// player at the end. A fault leaves a few of each bot.
    open: Vec<Named>,
    /// Trades that were told to have had no effect.
    aborted: VecDeque<Named>,
}

impl Journal {
    fn sort(&mut self) {
        if !self.sorted {
            self.entries[self.stable..].sort_unstable_by_key(|entry| entry.lsn);
            self.sorted = true;
        }
    }

    /// Which commit to ask about next; `None` when all are decided.
    fn place_to_ask(&self) -> Option<usize> {
        match self.lost {
            None => self.entries.len().checked_sub(1).filter(|last| *last >= self.stable),
            Some(lost) => (self.stable < lost).then(|| self.stable + (lost - self.stable) / 2),
        }
    }

    fn fate(&self, place: usize) -> Fate {
        if place < self.stable {
            Fate::Stable
        } else if self.lost.is_some_and(|lost| place >= lost) {
            Fate::Lost
        } else {
            Fate::Unknown
        }
    }
}

impl Ledger {
    /// An empty ledger of so many players.
    pub(crate) fn new(players: usize) -> Self {
        Self { settled: vec![Account::default(); players], ..Self::default() }
    }

    /// Notes a commit that a peer answered.
    pub(crate) fn committed(&mut self, peer: usize, trade: Named, commit: &Commit, at: u32) {
        let receipt = commit.receipt;
        let journal = self.journals.entry((receipt.group, receipt.term)).or_insert_with(|| Journal {
            sample: receipt,
            peer,
            entries: Vec::new(),
            sorted: true,
            stable: 0,
            lost: None,
            seen: 0,
        });
        if !commit.stable {
            // What is stable another peer may have done.
            journal.peer = peer;
        }
        journal.sorted &= journal.entries.last().is_none_or(|last| last.lsn < receipt.lsn);
        journal.lost = None;
        let Commit { gold, sold, stable: told_stable, .. } = *commit;
        journal.entries.push(Entry { trade, lsn: receipt.lsn, at, gold, sold, told_stable });
        self.entries += 1;
    }

    /// Notes a commit that is told stable under a receipt that is not its own.
    pub(crate) fn certain(&mut self, trade: Named, commit: &Commit, at: u32) {
        let Commit { gold, sold, receipt, .. } = *commit;
        self.certain.push(Entry { trade, lsn: receipt.lsn, at, gold, sold, told_stable: true });
        if self.certain.len() > CERTAIN_MAX {
            self.add_up_certain();
        }
    }

    /// The older half: the newer ones are looked through for what is missing.
    fn add_up_certain(&mut self) {
        let older = self.certain.len() / 2;
        for entry in self.certain.drain(..older) {
            credit(&mut self.settled, &entry);
        }
    }

    /// Notes a trade of whose outcome nothing was said.
    pub(crate) fn unanswered(&mut self, trade: Named) {
        self.open.push(trade);
    }

    /// Notes a trade that was told to have had no effect.
    pub(crate) fn aborted(&mut self, trade: Named) {
        if self.aborted.len() >= ABORTED_MAX {
            self.aborted.pop_front();
        }
        self.aborted.push_back(trade);
    }

    /// What must be asked to know more fates: one question for each journal that is not decided.
    pub(crate) fn questions(&mut self) -> Vec<Question> {
        let ask = |(key, journal): (&(GroupId, Term), &mut Journal)| {
            journal.sort();
            let place = journal.place_to_ask()?;
            Some(journal.question(*key, place))
        };
        self.journals.iter_mut().filter_map(ask).collect()
    }

    /// While commits go on: asks about what was there at the last call, once there is so much that it should be added
    /// up.
    pub(crate) fn questions_to_settle(&mut self) -> Vec<Question> {
        if self.entries < ENTRIES_MAX / 2 {
            return Vec::new();
        }
        let ask = |(key, journal): (&(GroupId, Term), &mut Journal)| {
            journal.sort();
            let seen = std::mem::replace(&mut journal.seen, journal.entries.len());
            let place = seen.checked_sub(1).filter(|place| *place >= journal.stable)?;
            Some(journal.question(*key, place))
        };
        self.journals.iter_mut().filter_map(ask).collect()
    }

    /// Takes an answer. Returns whether it says anything new. Commits must not have been added since the question.
    pub(crate) fn answer(&mut self, question: &Question, fate: Fate) -> bool {
        let Some(journal) = self.journals.get_mut(&question.key) else { return false };
        match fate {
            Fate::Unknown => return false,
            // R7: what is below something stable is stable.
            Fate::Stable => journal.stable = journal.stable.max(question.place + 1),
            Fate::Lost => {
                let before = journal.lost.unwrap_or(journal.entries.len());
                journal.lost = Some(before.min(question.place).max(journal.stable));
            }
        }
        true
    }

    /// As [`Ledger::answer`] for [`Ledger::questions_to_settle`]: commits may have been added meanwhile.
    pub(crate) fn settle(&mut self, question: &Question, fate: Fate) {
        if let (Some(journal), Fate::Stable) = (self.journals.get_mut(&question.key), fate) {
            let undecided = journal.entries.split_off(journal.stable);
            let is_stable = |entry: &Entry| entry.lsn <= question.receipt.lsn;
            let (stable, rest): (Vec<_>, Vec<_>) = undecided.into_iter().partition(is_stable);
            journal.entries.extend(stable);
            journal.stable = journal.entries.len();
            journal.entries.extend(rest);
            journal.sorted = false;
        }
        if self.entries > ENTRIES_MAX {
            self.add_up();
        }
    }

    fn add_up(&mut self) {
        for journal in self.journals.values_mut() {
            self.entries -= journal.stable;
            for entry in journal.entries.drain(..journal.stable) {
                credit(&mut self.settled, &entry);
            }
            journal.seen = journal.seen.saturating_sub(journal.stable);
            journal.lost = journal.lost.map(|lost| lost.saturating_sub(journal.stable));
            journal.stable = 0;
        }
    }

    /// For each journal the last stable and the first lost commit: where two peers that differ about fates differ.
    pub(crate) fn boundaries(&self) -> Vec<(Receipt, Fate)> {
        let ends = |(key, journal): (&(GroupId, Term), &Journal)| {
            let places = [journal.stable.checked_sub(1), journal.lost.filter(|lost| *lost < journal.entries.len())];
            let receipt = |place| (journal.question(*key, place).receipt, journal.fate(place));
            places.into_iter().flatten().map(receipt).collect::<Vec<_>>()
        };
        self.journals.iter().flat_map(ends).collect()
    }

    /// All commits that are kept one by one: which peer answered, what, and what became of it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &Entry, Fate)> {
        let kept = self.journals.values().flat_map(|journal| {
            let fate = |(place, entry)| (journal.peer, entry, journal.fate(place));
            journal.entries.iter().enumerate().map(fate)
        });
        kept.chain(self.certain.iter().map(|entry| (0, entry, Fate::Stable)))
    }

    /// Trades whose orders got no answer, or one that says nothing of the outcome.
    pub(crate) fn open(&self) -> &[Named] {
        &self.open
    }

    /// Trades that were told to have had no effect, as far as they are kept.
    pub(crate) const fn told_aborted(&self) -> &VecDeque<Named> {
        &self.aborted
    }

    /// What all stable commits come to, by player.
    pub(crate) fn stable_accounts(&self) -> Vec<Account> {
        let mut accounts = self.settled.clone();
        let stable = self.entries().filter(|(_, _, fate)| *fate == Fate::Stable);
        stable.for_each(|(_, entry, _)| credit(&mut accounts, entry));
        accounts
    }

    /// Receipts that two commits share; none may.
    pub(crate) fn shared_receipts(&mut self) -> u64 {
        let mut shared = 0;
        for journal in self.journals.values_mut() {
            let mut lsns: Vec<Lsn> = journal.entries.iter().map(|entry| entry.lsn).collect();
            lsns.sort_unstable();
            shared += lsns.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        }
        shared
    }
}

impl Journal {
    fn question(&self, key: (GroupId, Term), place: usize) -> Question {
        Question { key, place, receipt: Receipt { lsn: self.entries[place].lsn, ..self.sample } }
    }
}

fn credit(accounts: &mut [Account], entry: &Entry) {
    let (gold, items) = (i64::from(entry.gold), i64::from(entry.sold));
    for (player, sign) in [(entry.trade.buyer, 1), (entry.trade.seller, -1)] {
        let Some(account) = accounts.get_mut(index(player)) else { continue };
        account.trades += 1;
        account.sum = account.sum.wrapping_add(mark(entry.trade.id));
        account.gold += sign * gold;
        account.items += sign * items;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use driftmesh::Timestamp;
    use driftmesh_model::TxnTimestamp;

    /// A receipt of a group.
    pub(crate) fn receipt(group: u128, term: u64, lsn: u64) -> Receipt {
        let txn = TxnTimestamp { time: Timestamp::from_u64(7), incarnation: 8, sequence: 9 };
        Receipt {
            group: GroupId::from_u128(group),
            term: Term::from_u64(term),
            lsn: Lsn::from_u64(lsn),
            commit: Timestamp::from_u64(lsn),
            txn,
        }
    }

    /// A sale for 3 gold.
    pub(crate) fn commit(group: u128, lsn: u64) -> Commit {
        let receipt = receipt(group, 1, lsn);
        Commit { receipt, nanos: 1, gold: -3, sold: true, awaited_message: false, stable: false }
    }

    /// Trade `id` between players 0 and 1.
    pub(crate) const fn trade(id: u64) -> Named {
        Named { id, buyer: 0, seller: 1 }
    }

    /// Answers all questions as a mesh in which the commits from `lost` on are lost.
    pub(crate) fn decide(ledger: &mut Ledger, lost: u64) -> usize {
        let mut asked = 0;
        loop {
            let questions = ledger.questions();
            if questions.is_empty() {
                return asked;
            }
            for question in questions {
                asked += 1;
                let fate = if question.receipt.lsn < Lsn::from_u64(lost) { Fate::Stable } else { Fate::Lost };
                assert!(ledger.answer(&question, fate));
            }
        }
    }

    fn fates(ledger: &Ledger) -> Vec<(u64, Fate)> {
        ledger.entries().map(|(_, entry, fate)| (entry.lsn.as_u64(), fate)).collect()
    }

    #[test]
    fn one_question_decides_a_journal_that_lost_nothing() {
        let mut ledger = Ledger::new(2);
        for lsn in [2, 1, 3, 5, 4] {
            ledger.committed(0, trade(lsn), &commit(1, lsn), 0);
        }
        assert_eq!(decide(&mut ledger, 6), 1);
        assert!(fates(&ledger).iter().all(|(_, fate)| *fate == Fate::Stable));
    }

    #[test]
    fn few_questions_find_the_first_lost_commit() {
        for lost in [1, 2, 500, 999, 1_000] {
            let mut ledger = Ledger::new(2);
            (1..=1_000).rev().for_each(|lsn| ledger.committed(0, trade(lsn), &commit(1, lsn), 0));
            assert!(decide(&mut ledger, lost) <= 12);
            let expected = |lsn: u64| if lsn < lost { Fate::Stable } else { Fate::Lost };
            assert!(fates(&ledger).iter().all(|(lsn, fate)| *fate == expected(*lsn)), "{lost}");
            assert_eq!(ledger.boundaries().len(), if lost == 1 { 1 } else { 2 });
        }
    }

    #[test]
    fn what_nobody_knows_stays_unknown() {
        let mut ledger = Ledger::new(2);
        ledger.committed(0, trade(1), &commit(1, 1), 0);
        let question = ledger.questions()[0];
        assert!(!ledger.answer(&question, Fate::Unknown));
        assert_eq!(fates(&ledger), [(1, Fate::Unknown)]);
        assert_eq!(ledger.stable_accounts()[0], Account::default());
    }

    #[test]
    fn a_late_answer_is_asked_about_too() {
        let mut ledger = Ledger::new(2);
        ledger.committed(0, trade(5), &commit(1, 5), 0);
        decide(&mut ledger, 6);
        ledger.committed(0, trade(2), &commit(1, 2), 0);
        ledger.committed(0, trade(9), &commit(1, 9), 0);
        decide(&mut ledger, 6);
        assert_eq!(fates(&ledger), [(5, Fate::Stable), (2, Fate::Stable), (9, Fate::Lost)]);
    }

    #[test]
    fn accounts_are_the_same_whether_commits_are_kept_or_added_up() {
        let mut ledger = Ledger::new(2);
        (1..=10).for_each(|lsn| ledger.committed(0, trade(lsn), &commit(1, lsn), 0));
        let question = ledger.questions()[0];
        ledger.committed(0, trade(11), &commit(1, 11), 0);
        ledger.settle(&question, Fate::Stable);
        assert_eq!(fates(&ledger)[10], (11, Fate::Unknown));
        let kept = ledger.stable_accounts();
        ledger.add_up();
        assert_eq!(fates(&ledger), [(11, Fate::Unknown)]);
        assert_eq!(ledger.stable_accounts(), kept);
        assert_eq!((kept[0].trades, kept[0].gold, kept[0].items), (10, -30, 10));
        assert_eq!((kept[1].gold, kept[1].items, kept[1].sum), (30, -10, kept[0].sum));
    }

    #[test]
    fn what_is_certain_and_what_had_no_effect_takes_no_more_than_its_room() {
        let mut ledger = Ledger::new(2);
        let count = CERTAIN_MAX as u64 + 1;
        (0..count).for_each(|id| ledger.certain(trade(id), &commit(1, id), 0));
        assert!(ledger.certain.len() <= CERTAIN_MAX);
        let all = ledger.stable_accounts();
        assert_eq!((all[0].trades, all[1].trades), (count, count));
        assert_eq!(all[0].sum, (0..count).fold(0_u64, |sum, id| sum.wrapping_add(mark(id))));
        (0..=ABORTED_MAX as u64).for_each(|id| ledger.aborted(trade(id)));
        assert_eq!(ledger.told_aborted().len(), ABORTED_MAX);
        assert_eq!(ledger.told_aborted().back().map(|trade| trade.id), Some(ABORTED_MAX as u64));
    }

    #[test]
    fn two_commits_with_one_receipt_are_found() {
        let mut ledger = Ledger::new(2);
        ledger.committed(0, trade(1), &commit(1, 1), 0);
        ledger.committed(0, trade(2), &commit(2, 1), 0);
        assert_eq!(ledger.shared_receipts(), 0);
        ledger.committed(0, trade(3), &commit(2, 1), 0);
        assert_eq!(ledger.shared_receipts(), 1);
    }
}
