//! What the clients saw and wrote, attempt by attempt.

use crate::checker::{ObjectKey, Outcome, ReadRecord, Token, TxnRecord, WriteRecord};
use crate::game::Marked;
use crate::ledger::Ledger;
use driftmesh_model::{ObjectId, Ref};
use driftmesh_peer::Receipt;
use driftmesh_peer::session::Mutable;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The history of a run, shared by its clients.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
pub(crate) struct Inner {
    last_token: u64,
    pub(crate) records: Vec<TxnRecord>,
    /// Every receipt, and what was told of its fate.
    pub(crate) ledger: Ledger,
    /// What clients found wrong themselves.
    pub(crate) violations: Vec<String>,
    /// Transactions that began.
    pub(crate) begun: u64,
    pub(crate) committed: u64,
    pub(crate) expired: u64,
    /// The transactions that somebody is at, and some that have ended.
    attempts: Vec<Weak<Mutex<Attempt>>>,
}

pub(crate) fn key(object: ObjectId) -> ObjectKey {
    ObjectKey(object.as_u128())
}

impl Recorder {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn violation(&self, text: String) {
        self.lock().violations.push(text);
    }

    /// Begins to record a transaction of a session.
    pub(crate) fn transaction(&self, session: u32, label: &str) -> TxnLog {
        self.lock().begun += 1;
        self.observation(session, label)
    }

    /// The same for something that only looks, and does not count towards the work that a run does.
    pub(crate) fn observation(&self, session: u32, label: &str) -> TxnLog {
        let record = TxnRecord {
            label: label.to_owned(),
            session,
            reads: Vec::new(),
            writes: Vec::new(),
            outcome: Outcome::Aborted,
            serializable: false,
        };
        let attempt = Arc::new(Mutex::new(Attempt { record, deletes: Vec::new(), wrong: Vec::new() }));
        let attempts = &mut self.lock().attempts;
        if attempts.len() == attempts.capacity() {
            attempts.retain(|attempt| attempt.strong_count() > 0);
        }
        attempts.push(Arc::downgrade(&attempt));
        TxnLog { recorder: self.clone(), attempt }
    }

    /// The transactions that somebody is at, each with its session.
    pub(crate) fn under_way(&self) -> Vec<String> {
        let attempts: Vec<_> = self.lock().attempts.iter().filter_map(Weak::upgrade).collect();
        let name = |attempt: &Arc<Mutex<Attempt>>| {
            let attempt = attempt.lock().unwrap_or_else(PoisonError::into_inner);
            format!("`{}` of session {}", attempt.record.label, attempt.record.session)
        };
        attempts.iter().map(name).collect()
    }
}

struct Attempt {
    record: TxnRecord,
    deletes: Vec<(ObjectId, Token)>,
    wrong: Vec<String>,
}

/// Records one transaction. Cheap to clone into its closure.
#[derive(Clone)]
pub(crate) struct TxnLog {
    recorder: Recorder,
    attempt: Arc<Mutex<Attempt>>,
}

impl TxnLog {
    fn lock(&self) -> MutexGuard<'_, Attempt> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new attempt begins: what the former one wrote, nobody may ever see.
    pub(crate) fn attempt(&self) -> Self {
        self.close(Outcome::Aborted);
        self.lock().wrong.clear();
        self.clone()
    }

    /// Ends an attempt; returns where it is recorded, if it read or wrote anything, and what it deleted.
    fn close(&self, outcome: Outcome) -> (Option<usize>, Vec<(ObjectId, Token)>) {
        let mut attempt = self.lock();
        let empty =
            TxnRecord { reads: Vec::new(), writes: Vec::new(), outcome: Outcome::Aborted, ..attempt.record.clone() };
        let mut record = std::mem::replace(&mut attempt.record, empty);
        let deletes = std::mem::take(&mut attempt.deletes);
        if record.reads.is_empty() && record.writes.is_empty() {
            return (None, deletes);
        }
        record.outcome = outcome;
        let mut inner = self.recorder.lock();
        record.label = format!("{}#{}", record.label, inner.records.len());
        inner.records.push(record);
        (Some(inner.records.len() - 1), deletes)
    }

    /// The transaction ended without a commit.
    pub(crate) fn aborted(&self) {
        self.close(Outcome::Aborted);
    }

    /// The attempt saw something that cannot be. It counts when that is told: an attempt of a leader that does not know
    /// yet that it is deposed sees its past beside the present of others, and comes to nothing (R8, R9).
    pub(crate) fn wrong(&self, text: String) {
        self.lock().wrong.push(text);
    }

    /// The closure's error was told: what the attempt saw is true.
    pub(crate) fn told(&self) {
        let wrong = std::mem::take(&mut self.lock().wrong);
        self.recorder.lock().violations.extend(wrong);
    }

    /// The transaction committed, or a snapshot was read, and depends on these receipts. Returns its number in the
    /// ledger.
    pub(crate) fn committed(&self, receipts: Vec<Receipt>, stable: bool) -> usize {
        let (record, deletes) = self.close(Outcome::Committed);
        let (label, wrong) = {
            let mut attempt = self.lock();
            (attempt.record.label.clone(), std::mem::take(&mut attempt.wrong))
        };
        let mut inner = self.recorder.lock();
        inner.committed += 1;
        let number = inner.ledger.keep(label, receipts, stable, record, deletes);
        inner.ledger.wrong_unless_lost(number, wrong);
        number
    }

    /// Whether the present attempt writes.
    pub(crate) fn wrote_anything(&self) -> bool {
        let attempt = self.lock();
        !attempt.record.writes.is_empty() || !attempt.deletes.is_empty()
    }

    /// It asked for serializable isolation.
    pub(crate) fn serializable(&self) {
        self.lock().record.serializable = true;
    }

    /// A value was read.
    pub(crate) fn saw<T: Marked>(&self, reference: Ref<T>, value: &T) {
        let token = Token(value.token());
        self.lock().record.reads.push(ReadRecord { object: key(reference.id()), token });
    }

    fn token(&self) -> Token {
        let mut inner = self.recorder.lock();
        inner.last_token += 1;
        Token(inner.last_token)
    }

    fn wrote(&self, object: ObjectId, predecessor: Token) -> Token {
        let token = self.token();
        self.lock().record.writes.push(WriteRecord { object: key(object), predecessor, token });
        token
    }

    /// A value lent out for change is changed.
    pub(crate) fn change<T: Marked>(&self, value: &mut Mutable<T>) {
        let object = Mutable::reference(value).id();
        let token = self.wrote(object, Token(value.token()));
        value.mark(token.0);
    }

    /// A value is about to be created; `created` tells its id.
    pub(crate) fn create<T: Marked>(&self, value: &mut T) -> Token {
        let token = self.token();
        value.mark(token.0);
        token
    }

    /// The value with this token was created as this object.
    pub(crate) fn created<T>(&self, reference: Ref<T>, token: Token) {
        let object = key(reference.id());
        self.lock().record.writes.push(WriteRecord { object, predecessor: Token::INITIAL, token });
    }

    /// An object with this value is deleted.
    pub(crate) fn deleted<T: Marked>(&self, reference: Ref<T>, value: &T) {
        let token = self.wrote(reference.id(), Token(value.token()));
        self.lock().deletes.push((reference.id(), token));
    }
}
