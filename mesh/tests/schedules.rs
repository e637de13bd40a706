//! Schedules of live peers: delayed and periodic tasks, and those that follow a transaction.

use crate::common::{HANGS, meshes_of};
use driftmesh::{Builder, CatchUp, Mesh, Object, Ref, Result, Schedule, ScheduleId, Scheduling as _, Task, Tx, limits};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize, Default, Debug, Clone)]
struct Bell {
    /// When each run was intended, ms, and for how many occurrences it stood.
    rung: Vec<(u64, u64)>,
}

impl Object for Bell {
    const TYPE_NAME: &'static str = "bell";
}

#[derive(Clone, Serialize, Deserialize)]
struct Ring {
    bell: Ref<Bell>,
}

impl Task for Ring {
    type Output = ();
    const NAME: &'static str = "ring";

    async fn run(&self, tx: &Tx) -> Result<()> {
        let Some(occurrence) = tx.occurrence() else { return Err(tx.reject("nobody has scheduled this")) };
        tx.get_mut(self.bell).await?.rung.push((occurrence.intended_ms(), occurrence.count));
        Ok(())
    }
}

fn builder() -> Builder {
    Mesh::builder().register::<Ring>()
}

async fn bell(mesh: &Mesh) -> Ref<Bell> {
    mesh.transact(|tx| async move { tx.create(&Bell::default()) }).await.expect("it commits")
}

async fn rung(mesh: &Mesh, bell: Ref<Bell>) -> Vec<(u64, u64)> {
    let read = mesh.task("rung").deadline(HANGS);
    read.run(|tx| async move { Ok(tx.get(bell).await?.rung.clone()) }).await.expect("it commits")
}

async fn until_rung(mesh: &Mesh, bell: Ref<Bell>, times: usize) -> Vec<(u64, u64)> {
    let begun = Instant::now();
    loop {
        let rung = rung(mesh, bell).await;
        if rung.len() >= times {
            return rung;
        }
        assert!(begun.elapsed() < HANGS, "{rung:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn schedule(mesh: &Mesh, bell: Ref<Bell>, schedule: Schedule) -> ScheduleId {
    mesh.transact(|tx| async move { tx.schedule(bell, &Ring { bell }, schedule).await }).await.expect("it commits")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_task_runs_once_in_its_time() {
    let mesh = builder().start().await.unwrap();
    let bell = bell(&mesh).await;
    let now_ms = || mesh.transact(|tx| async move { Ok(tx.now_ms()) });
    let (before, begun) = (now_ms().await.unwrap(), Instant::now());
    schedule(&mesh, bell, Schedule::after(Duration::from_millis(200))).await;
    let after = now_ms().await.unwrap();
    assert_eq!(mesh.schedules(bell).await.unwrap().len(), 1);
    let rung = until_rung(&mesh, bell, 1).await;
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    assert!((before + 200..=after + 200).contains(&rung[0].0), "{rung:?} after {before} to {after}");
    assert!(mesh.schedules(bell).await.unwrap().is_empty(), "it has run");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(self::rung(&mesh, bell).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_of_50_ms_keeps_its_rate_and_ends_when_it_is_cancelled() {
    let mesh = builder().start().await.unwrap();
    let bell = bell(&mesh).await;
    let period = Duration::from_millis(50);
    let each = Schedule::every(period).first_after(Duration::ZERO).catch_up(CatchUp::Each { max: 100 });
    let begun = Instant::now();
    let id = schedule(&mesh, bell, each).await;
    let rung = until_rung(&mesh, bell, 20).await;
    assert!(begun.elapsed() >= period * 18, "{:?}", begun.elapsed());
    for pair in rung.windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, 50 * pair[0].1, "{rung:?}");
    }
    let cancelled = mesh.transact(|tx| async move { tx.cancel(id).await }).await.unwrap();
    assert!(cancelled && mesh.schedules(bell).await.unwrap().is_empty());
    let after = self::rung(&mesh, bell).await.len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(self::rung(&mesh, bell).await.len(), after);
    assert!(!mesh.transact(|tx| async move { tx.cancel(id).await }).await.unwrap(), "it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_goes_on_elsewhere_when_its_peer_is_gone() {
    let [first, second, _third] = meshes_of(builder, 3).await.try_into().expect("three");
    let bell = bell(&second).await;
    let each =
        Schedule::every(Duration::from_millis(50)).catch_up(CatchUp::Each { max: limits::SCHEDULE_CATCH_UP_MAX });
    second.task("plan").stable().run(|tx| async move { tx.schedule(bell, &Ring { bell }, each).await }).await.unwrap();
    let before = until_rung(&second, bell, 5).await.len();
    // The copies must be whole before their leader dies.
    while !second.status().may_stop {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(second);
    let rung = until_rung(&first, bell, before + 20).await;
    for pair in rung.windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, 50 * pair[0].1, "{rung:?}");
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Handing {
    from: Ref<Bell>,
    to: Ref<Bell>,
}

impl Task for Handing {
    type Output = ();
    const NAME: &'static str = "handing";

    async fn run(&self, tx: &Tx) -> Result<()> {
        tx.get_mut(self.from).await?.rung.push((0, 0));
        tx.then(self.to, &Ring { bell: self.to }).await.map(|_| ())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_runs_once_after_a_task_or_a_transaction_that_commits() {
    let mesh = builder().register::<Handing>().start().await.unwrap();
    let (from, to) = (bell(&mesh).await, bell(&mesh).await);
    mesh.submit(Handing { from, to }).await.unwrap();
    until_rung(&mesh, to, 1).await;
    let rejected = mesh
        .transact(|tx| async move {
            tx.then(to, &Ring { bell: to }).await?;
            Err::<(), _>(tx.reject("no"))
        })
        .await;
    assert!(rejected.is_err());
    mesh.transact(|tx| async move { tx.then(to, &Ring { bell: to }).await }).await.unwrap();
    until_rung(&mesh, to, 2).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((rung(&mesh, to).await.len(), rung(&mesh, from).await.len()), (2, 1));
    assert!(mesh.schedules(to).await.unwrap().is_empty());
}
