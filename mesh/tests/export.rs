//! A whole mesh in a file: one snapshot of it while everything moves, and a mesh that begins with it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, bounded, meshes, until};
use driftmesh::{
    CatchUp, ExportError, ImportError, Mesh, Object, ObjectId, Ref, Result, Schedule, Scheduling as _, StartError,
    Task, Tx, limits,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

/// A file in a directory of its own, that goes with its test.
struct TestFile(PathBuf);

impl TestFile {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("dm-export-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        Self(directory.join("mesh.export"))
    }

    /// How many files are in its directory.
    fn files(&self) -> usize {
        std::fs::read_dir(self.0.parent().unwrap()).unwrap().count()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

const ACCOUNTS: usize = 300;
const GOLD: u64 = 100;

async fn accounts(mesh: &Mesh) -> Vec<Ref<Player>> {
    let create = mesh.transact(|tx| async move {
        let mut accounts = Vec::new();
        for number in 0..ACCOUNTS {
            let account = tx.create(&Player::new(&number.to_string(), GOLD))?;
            if number % 10 == 0 {
                tx.bind(&format!("account/{number}"), account).await?;
            }
            accounts.push(account);
        }
        Ok(accounts)
    });
    bounded(create).await.unwrap()
}

/// Moves gold between accounts, and so accounts between peers, until told to end. Returns how often.
async fn pay(mesh: Mesh, accounts: Arc<Vec<Ref<Player>>>, seed: usize, ends: Arc<AtomicBool>) -> u64 {
    let mut paid = 0;
    let mut drawn = seed;
    while !ends.load(Ordering::Relaxed) {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (from, to) = (accounts[(drawn >> 33) % ACCOUNTS], accounts[(drawn >> 11) % ACCOUNTS]);
        if from == to {
            continue;
        }
        let done = mesh.task("pay").deadline(HANGS).run(|tx| async move {
            let (mut from, mut to) = (tx.get_mut(from).await?, tx.get_mut(to).await?);
            let amount = from.gold.min(3);
            from.gold -= amount;
            to.gold += amount;
            Ok(())
        });
        if done.await.is_ok() {
            paid += 1;
        }
    }
    paid
}

async fn sum(mesh: &Mesh, accounts: &[Ref<Player>]) -> u64 {
    let task = mesh.task("sum").deadline(HANGS);
    let summed =
        task.run(|tx| async move { Ok(tx.get_many(accounts).await?.iter().map(|account| account.gold).sum()) });
    bounded(summed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_while_gold_and_accounts_move_is_one_snapshot_and_a_mesh_begins_with_it() {
    let all = meshes(3).await;
    let accounts = Arc::new(accounts(&all[0]).await);
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    let ends = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(seed, mesh)| tokio::spawn(pay(mesh.clone(), Arc::clone(&accounts), seed + 1, Arc::clone(&ends))))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for round in 0..4 {
        let file = TestFile::new(&format!("moving-{round}"));
        let seen = AtomicU64::new(0);
        let progress = |exported: driftmesh::Exported| seen.store(exported.objects, Ordering::Relaxed);
        let exported = bounded(all[round % 3].export(&file.0, progress)).await.unwrap();
        assert_eq!(exported.objects, (ACCOUNTS + limits::NAME_BUCKETS) as u64);
        assert!(seen.load(Ordering::Relaxed) > 0 && exported.bytes == std::fs::metadata(&file.0).unwrap().len());
        let fresh = bounded(Mesh::builder().new_mesh().import(&file.0).start()).await.unwrap();
        assert_eq!(sum(&fresh, &accounts).await, ACCOUNTS as u64 * GOLD, "round {round}");
        // Names and references hold, also for whoever joins.
        let joined = bounded(Mesh::builder().join(&fresh.addresses()[0]).start()).await.unwrap();
        let named = bounded(joined.transact(|tx| async move { tx.lookup::<Player>("account/10").await })).await;
        assert_eq!(named.unwrap(), Some(accounts[10]));
        let added = bounded(joined.transact(|tx| async move { tx.create(&Player::new("new", 1)) })).await.unwrap();
        assert!(!accounts.contains(&added));
        assert_eq!(sum(&joined, &accounts).await, ACCOUNTS as u64 * GOLD);
        let again = bounded(all[0].export(&file.0, |_| {})).await;
        assert!(matches!(again, Err(ExportError::Exists { .. })), "{again:?}");
    }
    ends.store(true, Ordering::Relaxed);
    let mut paid = 0;
    for worker in workers {
        paid += bounded(worker).await.unwrap();
    }
    assert!(paid > 100, "{paid}");
    assert!(all.iter().map(|mesh| mesh.metrics().arrived).sum::<u64>() > 50, "accounts move");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_export_founds_nothing() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    accounts(&mesh).await;
    let file = TestFile::new("damaged");
    bounded(mesh.export(&file.0, |_| {})).await.unwrap();
    let good = std::fs::read(&file.0).unwrap();
    let start = async |content: &[u8]| {
        std::fs::write(&file.0, content).unwrap();
        bounded(Mesh::builder().import(&file.0).start()).await.err()
    };
    assert_eq!(start(&good).await, None);
    // A bit of a length makes a frame end elsewhere, perhaps beyond the file; one of anything else only the hash notices.
    for part in 1..8 {
        let mut flipped = good.clone();
        flipped[20 + (good.len() - 20) * part / 8] ^= 1;
        let refused = start(&flipped).await;
        let is_refused =
            matches!(refused, Some(StartError::Import(ImportError::Damaged { .. } | ImportError::Truncated { .. })));
        assert!(is_refused, "{refused:?}");
    }
    let cut = start(&good[..good.len() - 1]).await;
    assert!(matches!(cut, Some(StartError::Import(ImportError::Truncated { .. }))), "{cut:?}");
    let cut = start(&good[..good.len() / 3]).await;
    assert!(matches!(cut, Some(StartError::Import(ImportError::Truncated { .. }))), "{cut:?}");
    let mut newer = good.clone();
    newer[17] = 9;
    let newer = start(&newer).await;
    assert!(matches!(newer, Some(StartError::Import(ImportError::Newer { version: 9, .. }))), "{newer:?}");
    let foreign = start(b"#!/bin/sh").await;
    assert!(matches!(foreign, Some(StartError::Import(ImportError::Foreign { .. }))), "{foreign:?}");
    let absent = bounded(Mesh::builder().import("/nowhere/at/all").start()).await.err();
    assert!(matches!(absent, Some(StartError::Import(ImportError::Unreadable { .. }))), "{absent:?}");
    let joins = bounded(Mesh::builder().import(&file.0).join(&mesh.addresses()[0]).start()).await.err();
    assert_eq!(joins, Some(StartError::ImportWithoutNew));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_with_a_part_out_of_reach_is_not_exported_and_no_file_is_left() {
    let all = meshes(2).await;
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    // Two peers have one voter: what the lost one had waits for an operator.
    bounded(all[1].shutdown()).await;
    until("it is missed", || !all[0].status().leaderless.is_empty()).await;
    let file = TestFile::new("missing");
    let mut begun = BTreeSet::new();
    let noted = |exported: driftmesh::Exported| {
        begun.insert(exported.snapshots);
    };
    let refused = bounded(all[0].export(&file.0, noted)).await;
    assert!(begun.into_iter().eq(1..=10), "each snapshot is told of");
    assert!(
        matches!(&refused, Err(ExportError::NotWhole { why, .. }) if why.contains("nobody in reach")),
        "{refused:?}"
    );
    assert_eq!(file.files(), 0);
    // Given up, it counts no more.
    let group = all[0].status().leaderless[0].parse().unwrap();
    bounded(all[0].forget(group, true)).await.unwrap();
    bounded(all[0].export(&file.0, |_| {})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_exports_to_one_name_one_is_written_and_the_other_told() {
    let all = meshes(2).await;
    accounts(&all[0]).await;
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    for round in 0..10 {
        let file = TestFile::new(&format!("both-{round}"));
        let both = async { tokio::join!(all[0].export(&file.0, |_| {}), all[1].export(&file.0, |_| {})) };
        let told = match bounded(both).await {
            (Ok(_), Err(told)) | (Err(told), Ok(_)) => told,
            other => panic!("{other:?}"),
        };
        assert!(matches!(told, ExportError::Exists { .. }), "{told:?}");
        assert_eq!(file.files(), 1);
        let fresh = bounded(Mesh::builder().import(&file.0).start()).await;
        assert_eq!(fresh.unwrap().status().owned, ACCOUNTS + limits::NAME_BUCKETS);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_given_up_leaves_nothing_whenever_that_is() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    accounts(&mesh).await;
    let file = TestFile::new("given-up");
    let mut times = 0;
    loop {
        times += 1;
        let exported = bounded(polled(mesh.export(&file.0, |_| {}), times)).await;
        if let Some(exported) = exported {
            exported.unwrap();
            break;
        }
        assert_eq!(file.files(), 0, "given up after {times} polls");
    }
    assert!(times > 2, "it was given up while it was written, and while it was ended");
    assert_eq!(file.files(), 1);
}

/// Polls a future so often at most, and gives it up when it is woken once more.
async fn polled<F: Future>(future: F, times: u32) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        if polls > times { Poll::Ready(None) } else { future.as_mut().poll(context).map(Some) }
    })
    .await
}

/// What the runs of a schedule have done: it is another object than the one that has the schedule.
#[derive(Serialize, Deserialize, Default, Clone, Debug)]
struct Tally {
    runs: u64,
    /// When the last run was intended, ms, and for how many occurrences it stood.
    last: Option<(u64, u64)>,
    /// Runs that did not begin where the one before ended.
    gaps: u64,
}

impl Object for Tally {
    const TYPE_NAME: &'static str = "tally";
}

const PERIOD_MS: u64 = 20;

#[derive(Clone, Serialize, Deserialize)]
struct Tick {
    tally: Ref<Tally>,
}

impl Task for Tick {
    type Output = ();
    const NAME: &'static str = "tick";

    async fn run(&self, tx: &Tx) -> Result<()> {
        let Some(occurrence) = tx.occurrence() else { return Err(tx.reject("nobody has scheduled this")) };
        let mut tally = tx.get_mut(self.tally).await?;
        tally.runs += 1;
        let expected = tally.last.map(|(intended, count)| intended + PERIOD_MS * count);
        tally.gaps += u64::from(expected.is_some_and(|expected| expected != occurrence.intended_ms()));
        tally.last = Some((occurrence.intended_ms(), occurrence.count));
        Ok(())
    }
}

/// So many peers that know these tasks.
async fn working(count: usize) -> Vec<Mesh> {
    let builder = || Mesh::builder().register::<Tick>().register::<Count>();
    let mut all = vec![bounded(builder().start()).await.unwrap()];
    for _ in 1..count {
        let join = all[0].addresses().remove(0);
        all.push(bounded(builder().join(&join).start()).await.unwrap());
    }
    for mesh in &all {
        bounded(mesh.wait_for_peers(count - 1)).await;
    }
    all
}

async fn value<T: Object + Clone>(mesh: &Mesh, of: Ref<T>) -> T {
    bounded(mesh.transact(|tx| async move { Ok((*tx.get(of).await?).clone()) })).await.unwrap()
}

/// Objects with a schedule each, and what its runs change.
async fn clocks(all: &[Mesh], count: usize) -> Vec<(Ref<Player>, Ref<Tally>)> {
    let mut clocks = Vec::new();
    for number in 0..count {
        let made = all[number % all.len()].transact(|tx| async move {
            let (clock, tally) = (tx.create(&Player::new("clock", 0))?, tx.create(&Tally::default())?);
            let each = Schedule::every(Duration::from_millis(PERIOD_MS)).catch_up(CatchUp::Each { max: 1_000 });
            tx.schedule(clock, &Tick { tally }, each).await?;
            Ok((clock, tally))
        });
        clocks.push(bounded(made).await.unwrap());
    }
    clocks
}

/// Takes clocks from peer to peer until told to end.
async fn carry(mesh: Mesh, clocks: Vec<(Ref<Player>, Ref<Tally>)>, ends: Arc<AtomicBool>) {
    for number in 0.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let (clock, _) = clocks[number % clocks.len()];
        let _ = mesh.task("carry").deadline(HANGS).run(|tx| async move { tx.get_mut(clock).await.map(|_| ()) }).await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
}

/// A run and what it did are on the same side of a snapshot: what it did is in the file if and only if the schedule says that
/// it has run.
#[tokio::test(flavor = "multi_thread")]
async fn schedules_that_run_while_they_are_exported_go_on_where_the_snapshot_saw_them() {
    let all = working(3).await;
    let clocks = clocks(&all, 12).await;
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    let ends = Arc::new(AtomicBool::new(false));
    let carriers: Vec<_> =
        all.iter().map(|mesh| tokio::spawn(carry(mesh.clone(), clocks.clone(), Arc::clone(&ends)))).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut former = 0;
    for round in 0..6 {
        let file = TestFile::new(&format!("schedules-{round}"));
        bounded(all[round % 3].export(&file.0, |_| {})).await.unwrap();
        // This one does not know the task: nothing runs there.
        let still = bounded(Mesh::builder().new_mesh().import(&file.0).start()).await.unwrap();
        let mut runs = 0;
        for (clock, tally) in &clocks {
            let (scheduled, tally) = (bounded(still.schedules(*clock)).await.unwrap(), value(&still, *tally).await);
            assert_eq!((scheduled.len(), tally.gaps), (1, 0), "{tally:?}, {scheduled:?}");
            assert_eq!(scheduled[0].ran, tally.runs, "{tally:?}, {scheduled:?}");
            if let Some((intended, count)) = tally.last {
                assert_eq!(scheduled[0].next.as_millis(), intended + PERIOD_MS * count, "{tally:?}, {scheduled:?}");
            }
            runs += tally.runs;
        }
        assert!(runs > former, "they run while they are exported");
        former = runs;
        // This one goes on, and makes up for what was missed meanwhile.
        let fresh = bounded(Mesh::builder().register::<Tick>().new_mesh().import(&file.0).start()).await.unwrap();
        let begun = std::time::Instant::now();
        let (clock, tally) = clocks[round];
        let before = value(&still, tally).await.runs;
        while value(&fresh, tally).await.runs < before + 5 {
            assert!(begun.elapsed() < HANGS, "it does not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Both in one transaction: it runs on.
        let (ran, tally) = bounded(fresh.transact(|tx| async move {
            Ok((tx.schedules(clock.id()).await?[0].ran, (*tx.get(tally).await?).clone()))
        }))
        .await
        .unwrap();
        assert_eq!((ran, tally.gaps), (tally.runs, 0), "nothing twice, and nothing left out: {tally:?}");
    }
    ends.store(true, Ordering::Relaxed);
    for carrier in carriers {
        bounded(carrier).await.unwrap();
    }
    assert!(all.iter().map(|mesh| mesh.metrics().arrived).sum::<u64>() > 20, "what has a schedule moves");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_due_once_while_nobody_was_there_runs_when_the_mesh_begins_again() {
    let file = TestFile::new("once");
    let (clock, tally, due) = {
        let all = working(2).await;
        let due = std::time::Instant::now() + Duration::from_millis(1_500);
        let made = all[1].transact(|tx| async move {
            let (clock, tally) = (tx.create(&Player::new("auction", 0))?, tx.create(&Tally::default())?);
            tx.schedule(clock, &Tick { tally }, Schedule::after(Duration::from_millis(1_500))).await?;
            Ok((clock, tally))
        });
        let (clock, tally) = bounded(made).await.unwrap();
        bounded(all[0].export(&file.0, |_| {})).await.unwrap();
        assert_eq!(value(&all[0], tally).await.runs, 0, "it was exported in time");
        for mesh in &all {
            bounded(mesh.shutdown()).await;
        }
        (clock, tally, due)
    };
    tokio::time::sleep(due.saturating_duration_since(std::time::Instant::now())).await;
    let fresh = bounded(Mesh::builder().register::<Tick>().import(&file.0).start()).await.unwrap();
    let begun = std::time::Instant::now();
    while value(&fresh, tally).await.runs == 0 {
        assert!(begun.elapsed() < HANGS, "it never runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(value(&fresh, tally).await.runs, 1);
    assert!(bounded(fresh.schedules(clock)).await.unwrap().is_empty(), "it has run");
}

#[derive(Clone, Serialize, Deserialize)]
struct Count {
    tally: Ref<Tally>,
}

impl Task for Count {
    type Output = u64;
    const NAME: &'static str = "count";

    async fn run(&self, tx: &Tx) -> Result<u64> {
        let mut tally = tx.get_mut(self.tally).await?;
        tally.runs += 1;
        Ok(tally.runs)
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.tally.id()]
    }
}

/// A caller that submits all its tasks again after the stop: what the file has is told, what it has not runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_submitted_again_after_the_import_takes_effect_once_whether_the_snapshot_saw_it_or_not() {
    const TASKS: u64 = 150;
    let all = working(2).await;
    let tally = bounded(all[0].transact(|tx| async move { tx.create(&Tally::default()) })).await.unwrap();
    let file = TestFile::new("outcomes");
    let submitted = Arc::new(AtomicU64::new(0));
    let caller = tokio::spawn({
        let (mesh, submitted) = (all[1].clone(), Arc::clone(&submitted));
        async move {
            let mut answers = Vec::new();
            for _ in 0..TASKS {
                let id = mesh.task_id(&Count { tally }).await.unwrap();
                answers.push((id, mesh.submit(Count { tally }).with_id(id).await.unwrap()));
                submitted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            answers
        }
    });
    until("some have ended", || submitted.load(Ordering::Relaxed) > 20).await;
    bounded(all[0].export(&file.0, |_| {})).await.unwrap();
    let answers = bounded(caller).await.unwrap();
    let fresh = bounded(Mesh::builder().register::<Count>().import(&file.0).start()).await.unwrap();
    let seen = value(&fresh, tally).await.runs;
    assert!((20..TASKS).contains(&seen), "it was exported in between: {seen}");
    for (id, answer) in answers {
        let done = bounded(fresh.submit(Count { tally }).with_id(id).with_receipt()).await.unwrap();
        assert_eq!((done.value, done.earlier), (answer, answer <= seen));
    }
    assert_eq!(value(&fresh, tally).await.runs, TASKS);
}
