//! What clients do with names: bind them to signs, mostly in the transaction that creates the sign, free them, and
//! look them up.
//!
//! A sign says the name that it is bound to, and lives exactly as long as that binding. So a name without its sign,
//! or a sign without its name, shows a transaction that was torn.

use crate::client::{Came, Client};
use crate::game::Sign;
use crate::history::TxnLog;
use crate::host::SimHost;
use crate::ledger::Depends;
use crate::name_log::{AttemptTold, Bindings, NameLog};
use driftmesh_model::{ObjectId, Ref};
use driftmesh_peer::session::{Error, Isolation, NameBucket, Result, Snapshot, Tx};
use std::sync::Arc;

/// All names of a run begin in so many of the directory's buckets, so that these split.
const BUCKETS_USED: usize = 3;

/// The names of a run, and what was told of them.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) pool: Arc<[String]>,
    pub(crate) log: NameLog,
}

impl Names {
    pub(crate) fn new(count: usize) -> Self {
        let used: Vec<ObjectId> = NameBucket::of_genesis().take(BUCKETS_USED).collect();
        let names = (0..).map(|number| format!("name {number}"));
        let pool: Vec<String> = names.filter(|name| used.contains(&NameBucket::first_of(name))).take(count).collect();
        Self { pool: pool.into(), log: NameLog::default() }
    }
}

/// One attempt: where it works, and what notes what it was told.
struct Attempt {
    tx: Tx<SimHost>,
    log: TxnLog,
    told: AttemptTold,
}

impl Attempt {
    /// Creates a sign and binds a name to it; if the name is taken, notes by what.
    async fn christen(&self, name: &str) -> Result<()> {
        let mut sign = Sign { token: 0, name: name.to_owned() };
        let token = self.log.create(&mut sign);
        let sign = self.tx.create(&sign)?;
        match self.tx.bind(name, sign).await {
            Ok(()) => {
                self.log.created(sign, token);
                self.told.wrote(name, None, Some(sign.id()));
                Ok(())
            }
            Err(Error::NameTaken { by, .. }) => {
                self.told.saw(name, Some(by));
                self.tx.delete(sign).await
            }
            Err(other) => Err(other),
        }
    }

    /// Binds a name to a new sign, whatever it was bound to.
    async fn rechristen(&self, name: &str) -> Result<()> {
        let mut sign = Sign { token: 0, name: name.to_owned() };
        let token = self.log.create(&mut sign);
        let sign = self.tx.create(&sign)?;
        self.log.created(sign, token);
        let before = self.tx.rebind(name, sign).await?;
        self.told.wrote(name, before, Some(sign.id()));
        self.take_down(name, before).await
    }

    async fn free(&self, name: &str) -> Result<()> {
        let before = self.tx.unbind(name).await?;
        match before {
            Some(_) => self.told.wrote(name, before, None),
            None => self.told.saw(name, None),
        }
        self.take_down(name, before).await
    }

    /// Deletes the sign that a name was bound to.
    async fn take_down(&self, name: &str, sign: Option<ObjectId>) -> Result<()> {
        let Some(sign) = sign else { return Ok(()) };
        let sign = Ref::<Sign>::from_id(sign);
        let value = self.tx.get(sign).await.map_err(|error| self.torn(name, error))?;
        self.log.deleted(sign, &*value);
        self.tx.delete(sign).await
    }

    /// Gives a sign another name, unless that is taken.
    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let Some(sign) = self.tx.unbind(from).await? else {
            self.told.saw(from, None);
            return Ok(());
        };
        let sign = Ref::<Sign>::from_id(sign);
        match self.tx.bind(to, sign).await {
            Ok(()) => {}
            Err(Error::NameTaken { by, .. }) => {
                self.told.saw(to, Some(by));
                return self.tx.bind(from, sign).await;
            }
            Err(other) => return Err(other),
        }
        self.told.wrote(from, Some(sign.id()), None);
        self.told.wrote(to, None, Some(sign.id()));
        let mut value = self.tx.get_mut(sign).await.map_err(|error| self.torn(from, error))?;
        self.log.change(&mut value);
        to.clone_into(&mut value.name);
        Ok(())
    }

    async fn seek(&self, name: &str) -> Result<()> {
        let found = self.tx.lookup::<Sign>(name).await?;
        self.told.saw(name, found.map(|sign| sign.id()));
        let Some(sign) = found else { return Ok(()) };
        let value = self.tx.get(sign).await.map_err(|error| self.torn(name, error))?;
        self.log.saw(sign, &*value);
        if value.name != name {
            let text = format!("{name:?} is bound to sign {sign}, which says {:?}", value.name);
            self.log.wrong(text);
        }
        Ok(())
    }

    fn torn(&self, name: &str, error: Error) -> Error {
        if let Error::Dangling { object } = &error {
            self.log.wrong(format!("{name:?} is bound to sign {object}, which is nowhere"));
        }
        error
    }
}

/// What one attempt does with the names that were chosen for it.
#[derive(Clone, Copy)]
enum Work {
    Christen,
    Rechristen,
    Free,
    Rename,
    Seek,
}

impl Client {
    fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = self.world.names.pool.to_vec();
        self.rng.shuffle(&mut names);
        names.truncate(count);
        names
    }

    /// One transaction or snapshot with names, of a random kind.
    pub(crate) async fn use_names(&mut self) -> Came {
        match self.rng.u8(..20) {
            0..=5 => self.with_names("christen", 1, Work::Christen).await,
            6..=8 => self.with_names("christen many", 4, Work::Christen).await,
            9 | 10 => self.with_names("rechristen", 1, Work::Rechristen).await,
            11..=13 => self.with_names("free", 2, Work::Free).await,
            14 | 15 => self.with_names("rename", 2, Work::Rename).await,
            16..=18 => self.seek_names().await,
            _ => self.list_names().await,
        }
    }

    /// Looks some names up.
    pub(crate) async fn seek_names(&mut self) -> Came {
        self.with_names("seek", 3, Work::Seek).await
    }

    /// Binds a name, if it is free.
    pub(crate) async fn christen(&mut self) -> Came {
        self.with_names("christen", 1, Work::Christen).await
    }

    async fn with_names(&mut self, kind: &str, count: usize, work: Work) -> Came {
        let names: Arc<[String]> = self.names(count).into();
        let told = AttemptTold::default();
        let attempts = told.clone();
        let done = self.run_with_receipt(kind, Isolation::Snapshot, move |tx, log| {
            let attempt = Attempt { tx, log, told: attempts.begin() };
            let names = Arc::clone(&names);
            async move {
                if let (Work::Rename, [from, to, ..]) = (work, &*names) {
                    return attempt.rename(from, to).await;
                }
                for name in names.iter() {
                    match work {
                        Work::Christen => attempt.christen(name).await?,
                        Work::Rechristen => attempt.rechristen(name).await?,
                        Work::Free => attempt.free(name).await?,
                        Work::Rename | Work::Seek => attempt.seek(name).await?,
                    }
                }
                Ok(())
            }
        });
        match done.await {
            Ok((committed, number)) => {
                self.world.names.log.committed(committed.receipt.commit, &told, number);
                Came::Committed
            }
            Err(came) => came,
        }
    }

    /// Lists all names at one snapshot.
    async fn list_names(&mut self) -> Came {
        let log = self.world.recorder.transaction(self.session, "list");
        let listed = match Snapshot::take(self.host.clone(), "list") {
            Ok(snapshot) => snapshot.list("", None).await.map(|page| (snapshot.timestamp(), page)),
            Err(error) => Err(error),
        };
        let Ok((at, page)) = listed else {
            log.aborted();
            return Came::Nothing;
        };
        let mut depends = Depends::default();
        depends.on(&self.host);
        let number = log.committed(depends.receipts(), false);
        self.world.names.log.listed(at, page.names.into_iter().collect::<Bindings>(), number);
        Came::Committed
    }
}
