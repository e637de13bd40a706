//! Schedules of live peers: delayed and periodic tasks, and those that follow a transaction.

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
    mesh.transact(|tx| async move { tx.create(&Bell::default()) }).await.unwrap()
}

async fn rung(mesh: &Mesh, bell: Ref<Bell>) -> Vec<(u64, u64)> {
    mesh.transact(|tx| async move { Ok(tx.get(bell).await?.rung.clone()) }).await.unwrap()
}

async fn until_rung(mesh: &Mesh, bell: Ref<Bell>, times: usize) -> Vec<(u64, u64)> {
    let begun = Instant::now();
    loop {
        let rung = rung(mesh, bell).await;
        if rung.len() >= times {
            return rung;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{rung:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn schedule(mesh: &Mesh, bell: Ref<Bell>, schedule: Schedule) -> ScheduleId {
    mesh.transact(|tx| async move { tx.schedule(bell, &Ring { bell }, schedule).await }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_task_runs_once_in_its_time() {
    let mesh = builder().start().await.unwrap();
    let bell = bell(&mesh).await;
    let (before, begun) = (mesh.transact(|tx| async move { Ok(tx.now_ms()) }).await.unwrap(), Instant::now());
    schedule(&mesh, bell, Schedule::after(Duration::from_millis(200))).await;
    assert_eq!(mesh.schedules(bell).await.unwrap().len(), 1);
    let rung = until_rung(&mesh, bell, 1).await;
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!((before + 200..before + 1_000).contains(&rung[0].0), "{rung:?} after {before}");
    assert!(mesh.schedules(bell).await.unwrap().is_empty(), "it has run");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(self::rung(&mesh, bell).await.len(), 1);
}
