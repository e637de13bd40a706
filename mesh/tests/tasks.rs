//! Tasks over real connections: they run where their data is, once, and say what went wrong.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, until};
use driftmesh::{Builder, Mesh, Object, ObjectId, Outcome, Ref, Result, Task, TaskError, TaskId, Tx, limits};
use serde::{Deserialize, Serialize};

/// Pays, and answers what is left.
#[derive(Clone, Serialize, Deserialize)]
struct Pay {
    from: Ref<Player>,
    to: Ref<Player>,
    gold: u64,
}

impl Task for Pay {
    type Output = u64;
    const NAME: &'static str = "pay";

    async fn run(&self, tx: &Tx) -> Result<u64> {
        let mut from = tx.get_mut(self.from).await?;
        from.gold = from.gold.checked_sub(self.gold).ok_or_else(|| tx.reject("not enough gold"))?;
        tx.get_mut(self.to).await?.gold += self.gold;
        Ok(from.gold)
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.from.id(), self.to.id()]
    }
}

/// What a peer is asked to do that goes wrong, or needs nothing.
#[derive(Clone, Serialize, Deserialize)]
enum Odd {
    Panic(Ref<Player>),
    Hang(Ref<Player>),
    AnswerTooMuch(Ref<Player>),
    Nothing,
}

impl Task for Odd {
    type Output = String;
    const NAME: &'static str = "odd";

    async fn run(&self, _: &Tx) -> Result<String> {
        match self {
            Self::Panic(_) => panic!("oh no"),
            Self::Hang(_) => std::future::pending().await,
            Self::AnswerTooMuch(_) => Ok("x".repeat(limits::TASK_ANSWER_BYTES_MAX)),
            Self::Nothing => Ok("nothing".to_owned()),
        }
    }

    fn touches(&self) -> Vec<ObjectId> {
        match self {
            Self::Panic(player) | Self::Hang(player) | Self::AnswerTooMuch(player) => vec![player.id()],
            Self::Nothing => Vec::new(),
        }
    }
}

/// The same name and another version.
#[derive(Serialize, Deserialize)]
struct NewPay {
    from: Ref<Player>,
}

impl Task for NewPay {
    type Output = u64;
    const NAME: &'static str = "pay";
    const VERSION: u32 = 2;

    async fn run(&self, tx: &Tx) -> Result<u64> {
        Ok(tx.get(self.from).await?.gold)
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.from.id()]
    }
}

async fn bounded<F: IntoFuture>(future: F) -> F::Output {
    crate::common::bounded(future.into_future()).await
}

async fn meshes(count: usize, set_up: impl Fn(Builder) -> Builder) -> Vec<Mesh> {
    let mut all = vec![bounded(set_up(Mesh::builder()).start()).await.unwrap()];
    let address = all[0].addresses().remove(0);
    for _ in 1..count {
        all.push(bounded(set_up(Mesh::builder()).join(&address).start()).await.unwrap());
    }
    for mesh in &all {
        bounded(mesh.wait_for_peers(count - 1)).await;
    }
    all
}

async fn knowing(count: usize) -> Vec<Mesh> {
    meshes(count, |builder| builder.register::<Pay>().register::<Odd>()).await
}

async fn two_players(mesh: &Mesh) -> (Ref<Player>, Ref<Player>) {
    let create = |tx: Tx| async move { Ok((tx.create(&Player::new("Ada", 10))?, tx.create(&Player::new("Bob", 0))?)) };
    bounded(mesh.transact(create)).await.unwrap()
}

async fn gold(mesh: &Mesh, player: Ref<Player>) -> u64 {
    let task = mesh.task("read").deadline(HANGS);
    bounded(task.run(|tx| async move { Ok(tx.get(player).await?.gold) })).await.unwrap()
}

/// Lets a peer learn where an object is.
async fn looks_at(mesh: &Mesh, player: Ref<Player>) {
    gold(mesh, player).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_where_its_data_is_and_its_answer_is_stable() {
    let all = knowing(3).await;
    let (from, to) = two_players(&all[1]).await;
    looks_at(&all[0], from).await;
    let done = bounded(all[0].submit(Pay { from, to, gold: 3 }).with_receipt()).await.unwrap();
    assert_eq!((done.value, done.by, done.stable, done.earlier), (7, all[1].peer_id(), true, false));
    assert!(all[1].is_owned(from.id()) && all[1].is_owned(to.id()), "nothing has moved");
    assert_eq!(all[1].metrics().tasks_for_others, 1);
    // At its own peer it needs nobody.
    assert_eq!(bounded(all[1].submit(Pay { from, to, gold: 1 }).stable()).await.unwrap(), 6);
    assert_eq!((gold(&all[2], from).await, gold(&all[2], to).await), (6, 4));
    let error = bounded(all[0].submit(Pay { from, to, gold: 99 })).await.unwrap_err();
    assert_eq!(error.to_string(), "`pay` was rejected: not enough gold");
    assert_eq!(error.outcome(), Outcome::Aborted);
    let status = all[1].status();
    assert_eq!((status.tasks_submitted, status.tasks_running), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_takes_effect_once_at_whichever_peer() {
    let all = knowing(3).await;
    let (from, to) = two_players(&all[1]).await;
    let pay = Pay { from, to, gold: 4 };
    let id = bounded(all[0].task_id(&pay)).await.unwrap();
    let id = id.to_string().parse().unwrap();
    let mut earlier = Vec::new();
    for mesh in [&all[0], &all[1], &all[2], &all[0]] {
        let done = bounded(mesh.submit(pay.clone()).with_id(id).deadline(HANGS).with_receipt()).await.unwrap();
        assert_eq!((done.value, done.task), (6, id));
        earlier.push(done.earlier);
    }
    assert_eq!(earlier, [false, true, true, true]);
    assert_eq!((gold(&all[0], from).await, gold(&all[0], to).await), (6, 4));
    // A request that was rejected stays so, even if it could be done by now.
    let more = Pay { from, to, gold: 8 };
    let id = bounded(all[2].task_id(&more)).await.unwrap();
    assert!(matches!(bounded(all[2].submit(more.clone()).with_id(id)).await, Err(TaskError::Rejected { .. })));
    bounded(all[0].submit(Pay { from: to, to: from, gold: 4 })).await.unwrap();
    assert!(matches!(bounded(all[1].submit(more.clone()).with_id(id)).await, Err(TaskError::Rejected { .. })));
    assert_eq!(bounded(all[1].submit(more)).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_outlives_the_peer_that_made_it() {
    let all = knowing(3).await;
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    let (from, to) = two_players(&all[1]).await;
    looks_at(&all[0], from).await;
    let pay = Pay { from, to, gold: 4 };
    let id = bounded(all[0].task_id(&pay)).await.unwrap();
    let done = bounded(all[0].submit(pay.clone()).with_id(id).with_receipt()).await.unwrap();
    assert_eq!((done.value, done.by), (6, all[1].peer_id()));
    // A goodbye without handing anything over is what a crash is to the others.
    bounded(all[1].shutdown()).await;
    let again = bounded(all[2].submit(pay).with_id(id).deadline(HANGS).with_receipt()).await.unwrap();
    assert_eq!((again.value, again.earlier), (6, true));
    assert_eq!((gold(&all[0], from).await, gold(&all[2], to).await), (6, 4));
}

/// What stands for a peer as the anchor of its tasks that name none.
#[derive(Serialize, Deserialize)]
struct Session;

impl Object for Session {
    const TYPE_NAME: &'static str = "driftmesh.session";
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_own_anchor_is_given_up_with_anothers_group_gets_another() {
    let (all, lost) = with_lost_anchor().await;
    let done = bounded(all[0].submit(Odd::Nothing).with_receipt()).await.unwrap();
    assert_eq!(done.value, "nothing");
    assert_ne!(done.task.anchor, lost.anchor);
    let next = bounded(all[0].task_id(&Odd::Nothing)).await.unwrap();
    assert_eq!(next.anchor, done.task.anchor, "it is made once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_ids_gets_another_anchor_too() {
    let (all, lost) = with_lost_anchor().await;
    let kept = bounded(all[0].submit(Odd::Nothing).with_id(lost)).await;
    assert!(kept.is_err_and(|error| error.outcome() == Outcome::Unknown));
    let next = bounded(all[0].task_id(&Odd::Nothing)).await.unwrap();
    assert_ne!(next.anchor, lost.anchor);
    bounded(all[0].submit(Odd::Nothing).with_id(next)).await.unwrap();
}

/// A peer whose object that stands in for anchors was lost with another one, and an id of that.
async fn with_lost_anchor() -> (Vec<Mesh>, TaskId) {
    let all = knowing(2).await;
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    let id = bounded(all[0].task_id(&Odd::Nothing)).await.unwrap();
    let session: Ref<Session> = Ref::from_id(id.anchor);
    bounded(all[1].transact(|tx| async move { tx.get_mut(session).await.map(drop) })).await.unwrap();
    until("it has moved", || all[1].is_owned(id.anchor)).await;
    // Two peers have one voter: what the lost one had waits for an operator.
    bounded(all[1].shutdown()).await;
    until("it is missed", || !all[0].status().leaderless.is_empty()).await;
    let group = all[0].status().leaderless[0].parse().unwrap();
    bounded(all[0].forget(group, true)).await.unwrap();
    (all, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_and_the_peer_goes_on() {
    let all = knowing(2).await;
    let (from, to) = two_players(&all[1]).await;
    let there = all[1].peer_id();
    let odd = |task: Odd| all[0].submit_to(there, task);
    let error = bounded(odd(Odd::Panic(from))).await.unwrap_err();
    assert!(matches!(&error, TaskError::Panicked { at, message, .. } if *at == there && message == "oh no"), "{error}");
    let error = bounded(odd(Odd::AnswerTooMuch(from))).await.unwrap_err();
    assert!(matches!(error, TaskError::AnswerTooLarge { .. }), "{error}");
    let hangs = odd(Odd::Hang(from)).deadline(std::time::Duration::from_millis(300));
    let error = bounded(hangs).await.unwrap_err();
    assert!(matches!(error, TaskError::Deadline { .. } | TaskError::Unknown { .. }), "{error}");
    let panics = bounded(all[1].submit(Odd::Panic(from))).await.unwrap_err();
    assert!(matches!(panics, TaskError::Panicked { .. }), "{panics}");
    let listed = all[1].status().tasks_panicked;
    let one = listed.first().expect("it is listed where it ran");
    assert_eq!((listed.len(), one.name.as_str(), one.times, one.message.as_str()), (1, "odd", 2, "oh no"));
    assert_eq!((one.object.clone(), all[0].status().tasks_panicked), (from.id().to_string(), Vec::new()));
    let nobody: Ref<Player> = Ref::from_id(ObjectId::from_u128(7));
    let error = bounded(all[0].submit(Odd::AnswerTooMuch(nobody)).deadline(HANGS)).await.unwrap_err();
    assert!(matches!(error, TaskError::NoAnchor { .. }), "{error}");
    let gone = driftmesh::PeerId::from_bytes([9; 32]);
    assert!(matches!(bounded(all[0].submit_to(gone, Odd::Nothing)).await, Err(TaskError::Unreachable(_))));
    assert_eq!(bounded(all[0].submit(Odd::Nothing)).await.unwrap(), "nothing");
    assert_eq!(bounded(all[0].submit(Pay { from, to, gold: 1 })).await.unwrap(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_peer_does_not_know_runs_elsewhere_or_says_so() {
    let founder = bounded(Mesh::builder().register::<Pay>().start()).await.unwrap();
    let address = founder.addresses().remove(0);
    let newer = bounded(Mesh::builder().register::<NewPay>().join(&address).start()).await.unwrap();
    let (from, to) = two_players(&founder).await;
    looks_at(&newer, from).await;
    let other_version = bounded(newer.submit_to(founder.peer_id(), NewPay { from })).await.unwrap_err();
    assert!(matches!(other_version, TaskError::OtherVersion { here: 2, there: 1, .. }), "{other_version}");
    let unknown = bounded(newer.submit_to(founder.peer_id(), Odd::Panic(from))).await.unwrap_err();
    assert!(matches!(unknown, TaskError::Unregistered { .. }), "{unknown}");
    // Where it may run anywhere, its data comes to a peer that knows it.
    let done = bounded(newer.submit(NewPay { from }).with_receipt()).await.unwrap();
    assert_eq!((done.value, done.by), (10, newer.peer_id()));
    assert!(newer.is_owned(from.id()));
    let back = bounded(founder.submit(Pay { from, to, gold: 1 }).deadline(HANGS).with_receipt()).await.unwrap();
    assert_eq!((back.value, back.by), (9, founder.peer_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_types_of_one_name_are_refused_at_the_start() {
    let twice = Mesh::builder().register::<Pay>().register::<NewPay>().start();
    assert!(matches!(bounded(twice).await, Err(driftmesh::StartError::TaskName { name }) if name == "pay"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_a_share_of_its_peer_and_no_more() {
    let mesh = Mesh::builder().register::<Pay>().register::<Odd>().start().await.unwrap();
    let player = mesh.transact(|tx| async move { tx.create(&Player::new("Ada", 1)) }).await.unwrap();
    let (greedy, modest) = (mesh.caller(2), mesh.caller(1));
    let hang = || greedy.submit(Odd::Hang(player)).deadline(std::time::Duration::from_secs(6)).into_future();
    let hanging = [tokio::spawn(hang()), tokio::spawn(hang())];
    until("both are under way", || greedy.under_way() == 2).await;
    assert!(matches!(greedy.submit(Odd::Nothing).await, Err(TaskError::CallerBusy { most: 2 })));
    let refused = greedy.transact(|tx| async move { tx.get(player).await.map(drop) }).await;
    assert!(matches!(refused, Err(driftmesh::Error::CallerBusy { most: 2 })));
    assert_eq!(refused.unwrap_err().outcome(), Outcome::Aborted);
    // Others have room.
    assert_eq!(modest.submit(Odd::Nothing).await.unwrap(), "nothing");
    for hanging in hanging {
        assert!(matches!(hanging.await.unwrap(), Err(TaskError::Deadline { .. })));
    }
    assert_eq!(greedy.under_way(), 0);
    assert_eq!(greedy.submit(Odd::Nothing).await.unwrap(), "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_in_the_order_of_its_tasks_each_for_itself() {
    let mesh = Mesh::builder().register::<Pay>().register::<Odd>().start().await.unwrap();
    let players = mesh
        .transact(|tx| async move { Ok((tx.create(&Player::new("Ada", 300))?, tx.create(&Player::new("Bob", 0))?)) });
    let (from, to) = players.await.unwrap();
    let pays =
        (0..400).map(|number| Pay { from, to, gold: u64::from(number % 2 == 0) + 1_000 * u64::from(number == 7) });
    let ended = mesh.submit_all(pays).await;
    assert_eq!(ended.len(), 400);
    let failed: Vec<usize> = (0..400).filter(|number| ended[*number].is_err()).collect();
    assert_eq!(failed, [7], "that one asks for more than there is");
    let left = mesh.transact(|tx| async move { Ok(tx.get(from).await?.gold) }).await.unwrap();
    assert_eq!(left, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_others_is_tried_again_by_itself_if_it_is_wanted() {
    let mesh = Mesh::builder().register::<Odd>().start().await.unwrap();
    let player = mesh.transact(|tx| async move { tx.create(&Player::new("Ada", 1)) }).await.unwrap();
    mesh.submit(Odd::Nothing).await.unwrap();
    let hang = || mesh.submit(Odd::Hang(player)).deadline(std::time::Duration::from_secs(2)).into_future();
    let hanging: Vec<_> = (0..1_100).map(|_| tokio::spawn(hang())).collect();
    let begun = std::time::Instant::now();
    while !matches!(mesh.submit(Odd::Nothing).await, Err(TaskError::Busy { .. })) {
        assert!(begun.elapsed() < HANGS, "nobody is refused");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let patient = mesh.submit(Odd::Nothing).retries(100).deadline(std::time::Duration::from_secs(50));
    assert_eq!(patient.await.unwrap(), "nothing");
    for hanging in hanging {
        let ended = hanging.await.unwrap();
        assert!(matches!(ended, Err(TaskError::Deadline { .. } | TaskError::Busy { .. })), "{ended:?}");
    }
}
