//! `driftmesh::test` itself: the same handles in virtual time, equal runs for equal seeds, and failures that say how
//! to see them again.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

mod common;

use common::Player;
use driftmesh::test::{Faults, Options, Run, World, simulate, simulate_seeds};
use driftmesh::{BridgeEvent, Error, Mesh, ObjectId, Outcome, OwnershipEvent, Ref, Result, Task, TaskError, Tx};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// A game's function, as it would be used in production.
async fn pay(tx: Tx, from: Ref<Player>, to: Ref<Player>, gold: u64) -> Result<()> {
    let mut payer = tx.get_mut(from).await?;
    payer.gold = payer.gold.checked_sub(gold).ok_or_else(|| tx.reject("not enough gold"))?;
    tx.get_mut(to).await?.gold += gold;
    Ok(())
}

async fn create(mesh: &Mesh, gold: u64) -> Ref<Player> {
    let created = mesh.task("create").deadline(Duration::from_secs(30));
    created.run(|tx| async move { tx.create(&Player::new("Ada", gold)) }).await.unwrap()
}

async fn gold_of_all(mesh: &Mesh, players: &[Ref<Player>]) -> u64 {
    let sum = mesh
        .task("audit")
        .deadline(Duration::from_secs(30))
        .run(|tx| async move { Ok(tx.get_many(players).await?.iter().map(|player| player.gold).sum::<u64>()) });
    sum.await.unwrap()
}

/// Every peer pays round in a circle, under faults; afterwards the gold is counted.
async fn trade(peers: Vec<Mesh>, world: World) -> (u64, u64) {
    let mut players = Vec::new();
    for mesh in &peers {
        players.push(create(mesh, 100).await);
        players.push(create(mesh, 100).await);
    }
    let mut traders = Vec::new();
    for (number, mesh) in peers.iter().cloned().enumerate() {
        let (players, world_there) = (players.clone(), world.clone());
        traders.push(world.spawn(async move {
            let mut paid = 0;
            for round in 0..12 {
                let (from, to) = (players[(number + round) % players.len()], players[(number + 3) % players.len()]);
                paid += u64::from(from != to && mesh.transact(|tx| pay(tx, from, to, 5)).await.is_ok());
                world_there.sleep(Duration::from_millis(20)).await;
            }
            paid
        }));
    }
    let mut paid = 0;
    for trader in traders {
        paid += trader.join().await;
    }
    world.heal();
    (gold_of_all(&peers[0], &players).await, paid)
}

fn traded(seed: u64, faults: Faults) -> Run<(u64, u64)> {
    simulate(Options::seed(seed).faults(faults), trade)
}

#[test]
fn one_seed_gives_one_run_and_another_gives_another() {
    for faults in [Faults::none(), Faults::network(), Faults::all()] {
        let first = traded(11, faults);
        assert_eq!(first, traded(11, faults), "{faults:?}");
        assert_ne!(first.trace_hash, traded(12, faults).trace_hash, "{faults:?}");
        assert_eq!(first.value.0, 600);
    }
}

#[test]
fn many_seeds_keep_every_coin_under_all_faults_and_are_not_idle() {
    let runs = simulate_seeds(0..40, Options::seed(0).faults(Faults::all()), trade);
    assert_eq!(runs.len(), 40);
    for run in &runs {
        assert_eq!(run.value.0, 600);
    }
    let paid: u64 = runs.iter().map(|run| run.value.1).sum();
    let transfers: u64 = runs.iter().map(|run| run.transfers).sum();
    assert!(paid > 40 * 12 && runs.iter().any(|run| run.faults > 0), "{paid} payments");
    assert!(transfers > 40 * 6, "{transfers} transfers");
}

/// What the panic of a simulation says.
fn why(simulation: impl FnOnce() + Send + 'static) -> String {
    let thread = std::thread::Builder::new().name("games::gold_is_kept".to_owned());
    let panic = thread.spawn(simulation).unwrap().join().expect_err("the simulation fails");
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn failures_say_the_seed_and_how_to_replay_it() {
    let said = why(|| drop(simulate(Options::seed(77), |_, _| async { assert_eq!(1, 2, "gold was lost") })));
    assert!(said.contains("seed 77") && said.contains("gold was lost"), "{said}");
    assert!(said.ends_with("DRIFTMESH_TEST_SEED=77 cargo test games::gold_is_kept"), "{said}");

    let limit = Options::seed(5).limit(Duration::from_secs(3));
    let said = why(move || drop(simulate(limit, |_, _| std::future::pending::<()>())));
    assert!(said.contains("did not end in its virtual time (3 s)") && said.contains("seed 5"), "{said}");

    let spins = |_, _| {
        std::future::poll_fn::<(), _>(|context| {
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
    };
    let said = why(move || drop(simulate(Options::seed(6), spins)));
    assert!(said.contains("without letting virtual time pass"), "{said}");

    let said = why(|| {
        let spawned =
            |_, world: World| async move { world.spawn(async { panic!("in a spawned future") }).join().await };
        simulate(Options::seed(8), spawned);
    });
    assert!(said.contains("in a spawned future"), "{said}");
}

#[test]
fn every_part_of_the_handle_works_in_virtual_time() {
    let run = simulate(Options::seed(3).peers(3), |peers, world| async move {
        let (here, there) = (&peers[0], &peers[1]);
        here.wait_for_peers(2).await;
        here.joined(None).await.unwrap();
        assert_eq!((here.peers().len(), here.addresses().len()), (2, 0));
        let mut events = there.ownership().unwrap();
        let mut players = Vec::new();
        for gold in 0..100 {
            players.push(create(here, gold).await);
        }
        assert_eq!(here.owned::<Player>().count(), 100);

        there.prefetch(players.iter().map(Ref::id)).unwrap();
        while there.owned::<Player>().count() < 100 {
            world.sleep(Duration::from_millis(10)).await;
        }
        let mut arrived = BTreeSet::new();
        while arrived.len() < 100 {
            let OwnershipEvent::Arrived(arrival) = events.next().await else { panic!("nothing leaves") };
            arrived.insert(arrival.object);
        }
        assert_eq!(arrived, players.iter().map(Ref::id).collect());

        let snapshot = peers[2].snapshot().unwrap();
        assert_eq!(snapshot.get(players[7]).await.unwrap().gold, 7);
        drop(snapshot);
        let left = there.leave(Duration::from_secs(10)).await;
        assert_eq!((left.handed_over, left.stayed), (100, 0));
        world.sleep(Duration::from_millis(50)).await;
        assert_eq!((here.peers().len(), there.peers().len()), (1, 0));
        assert!(matches!(there.transact(|tx| async move { Ok(tx.attempt()) }).await, Err(Error::Leaving)));
        assert_eq!(gold_of_all(here, &players).await, 4_950);
        assert_eq!(here.status().mesh, "simulated");
    });
    assert!(run.transfers >= 200 && run.elapsed > Duration::from_millis(250), "{run:?}");
}

#[test]
fn a_game_loop_with_a_bridge_runs_in_virtual_time() {
    let run = simulate(Options::seed(4).peers(2).faults(Faults::network()), |peers, world| async move {
        let (ada, bob) = (create(&peers[0], 50).await, create(&peers[1], 0).await);
        let mut bridge = peers[0].bridge::<u64, ()>().unwrap();
        let mut next = 0;
        let (mut done, mut failed) = (0, 0);
        while done + failed < 20 {
            for event in bridge.events() {
                if let BridgeEvent::Finished { result, .. } = event {
                    if result.is_ok() { done += 1 } else { failed += 1 }
                }
            }
            if next < 20 {
                bridge.submit(next, move |tx| pay(tx, ada, bob, 1)).unwrap();
                next += 1;
            }
            world.sleep(Duration::from_millis(50)).await;
        }
        world.heal();
        (gold_of_all(&peers[1], &[ada, bob]).await, done)
    });
    assert_eq!(run.value.0, 50);
    assert!(run.value.1 > 0, "{} of 20 payments", run.value.1);
}

/// The same payment, as a task.
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
        pay(tx.clone(), self.from, self.to, self.gold).await?;
        Ok(tx.get(self.from).await?.gold)
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.from.id(), self.to.id()]
    }
}

#[test]
fn tasks_take_effect_once_under_faults_too() {
    let options = Options::seed(0).faults(Faults::all()).register::<Pay>();
    let runs = simulate_seeds(0..8, options, |peers, world| async move {
        let (from, to) = (create(&peers[1], 100).await, create(&peers[1], 0).await);
        let mut told = BTreeSet::new();
        let payment = Pay { from, to, gold: 10 };
        let id = peers[0].task_id(&payment).await.unwrap();
        for mesh in peers.iter().cycle().take(6) {
            // Under faults a task may end as unknown; the next peer is asked then.
            told.extend(mesh.submit(payment.clone()).with_id(id).await.ok());
        }
        world.heal();
        let last = peers[2].submit(payment).with_id(id).deadline(Duration::from_secs(30));
        told.insert(last.await.unwrap());
        (told, gold_of_all(&peers[0], &[to]).await)
    });
    for run in runs {
        assert_eq!(run.value, (BTreeSet::from([90]), 10));
    }
}

#[test]
fn a_provisional_answer_comes_first_and_what_its_caller_does_next_waits_until_it_is_certain() {
    let runs = simulate_seeds(0..8, Options::seed(0).register::<Pay>(), |peers, world| async move {
        let (from, to) = (create(&peers[1], 100).await, create(&peers[1], 0).await);
        let (own, others) = (create(&peers[0], 1).await, create(&peers[0], 1).await);
        gold_of_all(&peers[0], &[from, to]).await;
        // Until there are copies, everything is certain at once.
        world.sleep(Duration::from_secs(5)).await;
        // One place is enough: the call that waits is not refused.
        let (caller, other) = (peers[0].caller(1), peers[0].caller(1));
        let told = caller.provisional(peers[0].submit(Pay { from, to, gold: 10 })).await.unwrap();
        assert_eq!((told.value, told.by), (90, peers[1].peer_id()));
        let was_settled = told.is_settled();
        let of_other = other.transact(|tx| async move { tx.get_mut(others).await.map(drop) });
        of_other.await.unwrap();
        let early = world.elapsed();
        let (clock, there) = (world.clone(), caller.clone());
        let next = world.spawn(async move {
            there.transact(|tx| async move { tx.get_mut(own).await.map(drop) }).await.unwrap();
            clock.elapsed()
        });
        let done = told.settled().await.unwrap();
        let settled = world.elapsed();
        assert_eq!((done.value, done.stable, done.by), (90, true, peers[1].peer_id()));
        // Nobody else was held up, and what has settled holds up nobody.
        let next = next.join().await;
        assert!(was_settled || (early < settled && settled <= next), "{early:?} {settled:?} {next:?}");
        drop(caller.provisional(peers[0].submit(Pay { from, to, gold: 1 })).await.unwrap());
        let rejected = caller.provisional(peers[0].submit(Pay { from, to, gold: 1_000 })).await;
        assert!(matches!(rejected, Err(TaskError::Rejected { .. })), "{rejected:?}");
        // At home it is told as early; and the one before went on, though nobody waited for it.
        let home = peers[1].caller(1);
        let told = home.provisional(peers[1].submit(Pay { from, to, gold: 1 })).await.unwrap();
        assert_eq!((told.value, told.is_settled()), (88, was_settled));
        told.settled().await.unwrap();
        (was_settled, gold_of_all(&peers[1], &[to]).await)
    });
    assert!(runs.iter().all(|run| run.value.1 == 12));
    assert!(runs.iter().any(|run| !run.value.0), "nothing was provisional");
}

/// Peers stand still until they are deposed, with what they had told.
#[test]
fn a_provisional_answer_that_did_not_stay_is_told_before_anything_can_rest_on_it() {
    let options = Options::seed(0).faults(Faults::all()).register::<Pay>();
    let runs = simulate_seeds(0..240, options, |peers, world| async move {
        let (from, to) = (create(&peers[1], 1_000).await, create(&peers[1], 0).await);
        let (mut told_otherwise, mut refused, mut paid, mut unknown) = (0, 0, 0, 0);
        for round in 0..12 {
            let caller = peers[0].caller(2);
            // It ends before the next call has waited too long.
            let payment = peers[0].submit(Pay { from, to, gold: 1 }).deadline(Duration::from_secs(4));
            let told = match caller.provisional(payment).await {
                Ok(told) => told,
                Err(error) => {
                    unknown += u64::from(error.outcome() == Outcome::Unknown);
                    continue;
                }
            };
            let value = told.value;
            // Every other one does not ask what became of it: then the next call is told.
            let next = caller.transact(|_| async move { Ok(()) });
            let (settled, next) = if round % 2 == 0 {
                let settled = told.settled().await;
                (settled, next.await)
            } else {
                let next = next.await;
                (told.settled().await, next)
            };
            let is_so = settled.as_ref().is_ok_and(|done| done.value == value);
            paid += u64::from(settled.is_ok());
            unknown += u64::from(settled.as_ref().is_err_and(|error| error.outcome() == Outcome::Unknown));
            let is_refused = matches!(next, Err(Error::ToldOtherwise { .. }));
            told_otherwise += u64::from(!is_so);
            refused += u64::from(is_refused);
            assert!(!is_refused || (!is_so && round % 2 == 1), "it was so, or was heard");
            assert!(is_so || is_refused || round % 2 == 0, "nobody was told: {value} {settled:?} {next:?}");
        }
        world.heal();
        // Who was told of the payments sees them.
        let gold = gold_of_all(&peers[0], &[to]).await;
        assert!((paid..=paid + unknown).contains(&gold), "{gold} gold of {paid} payments, {unknown} unknown");
        (told_otherwise, refused)
    });
    let told_otherwise: u64 = runs.iter().map(|run| run.value.0).sum();
    let refused: u64 = runs.iter().map(|run| run.value.1).sum();
    println!("{told_otherwise} told otherwise, {refused} calls refused");
    assert!(told_otherwise > 0 && refused > 0, "too quiet: {told_otherwise} told otherwise, {refused} refused");
}

#[test]
fn a_simulated_peer_says_that_it_is_not_exported() {
    let run = simulate(Options::seed(1), |peers, _| async move {
        peers[0].export(std::path::Path::new("/nowhere/mesh.export"), |_| {}).await
    });
    assert!(matches!(run.value, Err(driftmesh::ExportError::Simulated)), "{:?}", run.value);
}
