//! Messages to the world outside, of live peers: delivered once their commit is stable, at least once, with one id.

use crate::common::{HANGS, meshes_of};
use driftmesh::{Builder, DeliveryId, Mesh, Object, Outbox as _, OutboxMessage, Ref, TaskError, Undelivered, limits};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize, Default)]
struct Shop {
    sold: u64,
}

impl Object for Shop {
    const TYPE_NAME: &'static str = "shop";
}

/// What was heard outside: of whom, under which id, and whether it was taken.
static HEARD: Mutex<Vec<(String, DeliveryId, bool)>> = Mutex::new(Vec::new());
/// Those that are not listened to just now.
static DEAF: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Serialize, Deserialize)]
struct Sold {
    by: String,
    /// How often nobody takes it.
    refusals: usize,
}

impl OutboxMessage for Sold {
    const NAME: &'static str = "sold";

    async fn deliver(&self, id: DeliveryId) -> Result<(), Undelivered> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(self.by != "a type that panics", "it panics");
        let taken = heard(&self.by).len() >= self.refusals && !lock(&DEAF).contains(&self.by);
        lock(&HEARD).push((self.by.clone(), id, taken));
        if taken { Ok(()) } else { Err(Undelivered { retry_after: Duration::from_millis(20) }) }
    }
}

fn heard(by: &str) -> Vec<(DeliveryId, bool)> {
    lock(&HEARD).iter().filter(|(said, ..)| said == by).map(|(_, id, taken)| (*id, *taken)).collect()
}

fn builder() -> Builder {
    Mesh::builder().deliver::<Sold>()
}

async fn shop(mesh: &Mesh) -> Ref<Shop> {
    mesh.transact(|tx| async move { tx.create(&Shop::default()) }).await.expect("it commits")
}

async fn sell(mesh: &Mesh, shop: Ref<Shop>, by: &str, refusals: usize) {
    let sold = &Sold { by: by.to_owned(), refusals };
    let done = mesh.transact(|tx| async move {
        tx.get_mut(shop).await?.sold += 1;
        tx.send_outside(shop, sold).await.map(drop)
    });
    done.await.expect("it commits");
}

/// Until somebody outside has taken it.
async fn until_taken(by: &str) -> Vec<(DeliveryId, bool)> {
    let begun = Instant::now();
    loop {
        let heard = heard(by);
        if heard.iter().any(|(_, taken)| *taken) {
            return heard;
        }
        assert!(begun.elapsed() < HANGS, "{heard:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_nothing_waits(mesh: &Mesh, shop: Ref<Shop>) {
    let begun = Instant::now();
    while !mesh.schedules(shop).await.expect("it commits").is_empty() {
        assert!(begun.elapsed() < HANGS, "it is still to be delivered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_says_is_delivered_once_and_what_a_rejected_one_says_is_not() {
    let mesh = builder().start().await.unwrap();
    let shop = shop(&mesh).await;
    sell(&mesh, shop, "a commit", 0).await;
    let rejected = mesh.transact(|tx| async move {
        tx.send_outside(shop, &Sold { by: "nobody".to_owned(), refusals: 0 }).await?;
        Err::<(), _>(tx.reject("not sold after all"))
    });
    rejected.await.unwrap_err();
    until_taken("a commit").await;
    until_nothing_waits(&mesh, shop).await;
    assert_eq!(heard("a commit").len(), 1);
    assert!(heard("nobody").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_said_again_under_the_same_id_and_its_object_is_free_meanwhile() {
    let mesh = builder().start().await.unwrap();
    let shop = shop(&mesh).await;
    sell(&mesh, shop, "a busy one", 3).await;
    sell(&mesh, shop, "another", 0).await;
    let heard = until_taken("a busy one").await;
    assert_eq!(heard.iter().map(|(_, taken)| *taken).collect::<Vec<_>>(), [false, false, false, true]);
    assert!(heard.iter().all(|(id, _)| *id == heard[0].0), "{heard:?}");
    assert_ne!(until_taken("another").await[0].0, heard[0].0);
    until_nothing_waits(&mesh, shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_when_its_peer_crashed_is_delivered_by_another() {
    let [first, second, _third] = meshes_of(builder, 3).await.try_into().expect("three");
    let shop = shop(&second).await;
    lock(&DEAF).push("a crash".to_owned());
    sell(&second, shop, "a crash", 0).await;
    let begun = Instant::now();
    // It was said, so its commit is stable; and the copies must be whole before their leader dies.
    while heard("a crash").is_empty() || !second.status().may_stop {
        assert!(begun.elapsed() < HANGS);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(second);
    lock(&DEAF).retain(|by| by != "a crash");
    let heard = until_taken("a crash").await;
    assert!(heard.iter().all(|(id, _)| *id == heard[0].0), "{heard:?}");
    until_nothing_waits(&first, shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_when_the_mesh_was_exported_is_delivered_by_the_next_one_under_the_same_id() {
    let file = std::env::temp_dir().join(format!("dm-outbox-{}.export", std::process::id()));
    let mesh = builder().start().await.unwrap();
    let shop = shop(&mesh).await;
    lock(&DEAF).push("an export".to_owned());
    sell(&mesh, shop, "an export", 1).await;
    let begun = Instant::now();
    while heard("an export").is_empty() {
        assert!(begun.elapsed() < HANGS);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mesh.export(&file, |_| {}).await.unwrap();
    mesh.shutdown().await;
    lock(&DEAF).retain(|by| by != "an export");
    let fresh = builder().import(&file).start().await.unwrap();
    let heard = until_taken("an export").await;
    assert!(heard.iter().all(|(id, _)| *id == heard[0].0), "{heard:?}");
    until_nothing_waits(&fresh, shop).await;
    let _ = std::fs::remove_file(&file);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_panics_waits_for_another_peer_and_is_listed() {
    let mesh = builder().start().await.unwrap();
    let shop = shop(&mesh).await;
    sell(&mesh, shop, "a type that panics", 0).await;
    let begun = Instant::now();
    while mesh.status().tasks_panicked.is_empty() {
        assert!(begun.elapsed() < HANGS);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(mesh.status().tasks_panicked[0].name, "sold");
    let waits = mesh.schedules(shop).await.unwrap();
    assert_eq!((waits.len(), waits[0].panicked_at.len()), (1, 1), "{waits:?}");
    mesh.transact(|tx| {
        let id = waits[0].id;
        async move { tx.cancel(id).await }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_has_room_for_so_many_messages() {
    // Nobody here knows the type, so that none is delivered.
    let mesh = Mesh::builder().start().await.unwrap();
    let shop = shop(&mesh).await;
    for _ in 0..limits::SCHEDULES_MAX {
        sell(&mesh, shop, "too many", 0).await;
    }
    let one_more = mesh.transact(|tx| async move {
        tx.send_outside(shop, &Sold { by: "too many".to_owned(), refusals: 0 }).await.map(drop)
    });
    assert!(matches!(one_more.await, Err(driftmesh::Error::Schedule { .. })));
    assert!(heard("too many").is_empty());
}

/// How many of these are under way, and how many were at most.
static HANGING: Mutex<(usize, usize)> = Mutex::new((0, 0));

#[derive(Serialize, Deserialize)]
struct Hangs;

impl OutboxMessage for Hangs {
    const NAME: &'static str = "hangs";

    async fn deliver(&self, _: DeliveryId) -> Result<(), Undelivered> {
        {
            let mut hanging = lock(&HANGING);
            hanging.0 += 1;
            hanging.1 = hanging.1.max(hanging.0);
        }
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_hangs_leaves_room_for_others() {
    let mesh = builder().deliver::<Hangs>().start().await.unwrap();
    // More than are delivered at once, of one type and of all.
    for _ in 0..6 {
        let shop = shop(&mesh).await;
        let hung = mesh.transact(|tx| async move {
            for _ in 0..limits::SCHEDULES_MAX {
                tx.send_outside(shop, &Hangs).await?;
            }
            Ok(())
        });
        hung.await.unwrap();
    }
    let shop = shop(&mesh).await;
    sell(&mesh, shop, "beside what hangs", 1).await;
    until_taken("beside what hangs").await;
    until_nothing_waits(&mesh, shop).await;
    assert_eq!(lock(&HANGING).1, driftmesh::DELIVERIES_PER_TYPE_MAX);
}

#[derive(Serialize, Deserialize)]
struct Pretender;

impl driftmesh::Task for Pretender {
    type Output = ();
    const NAME: &'static str = Sold::NAME;

    async fn run(&self, _: &driftmesh::Tx) -> driftmesh::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_no_task() {
    let mesh = builder().start().await.unwrap();
    let submitted = mesh.submit(Pretender).await;
    assert!(matches!(submitted, Err(TaskError::Unregistered { .. })), "{submitted:?}");
    let both = builder().register::<Pretender>().start().await;
    assert!(matches!(both, Err(driftmesh::StartError::TaskName { .. })));
}
