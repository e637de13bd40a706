//! What consensus costs: messages of an idle group, what goes out again for nothing, how much is under way.

use crate::network::Quality;
use crate::ours::Ours;
use crate::stories::{all_alike, group, millis};
use driftmesh_model::Micros;
use driftmesh_object_store::{Body, Settings};
use std::sync::Arc;

#[test]
fn an_idle_group_says_little() {
    for (count, most) in [(1, 0), (3, 70), (5, 140)] {
        let (mut world, _) = group::<Ours>(count, Settings::default(), Quality::GOOD);
        let before = world.traffic;
        world.run_for(millis(10_000));
        let a_second = (world.traffic.messages - before.messages) / 10;
        println!("{count} members: {a_second} messages a second");
        // Each follower is heard and answers every 60 ms.
        assert!(a_second <= most, "{count} idle members say {a_second} messages a second");
        assert_eq!(world.traffic.entries, before.entries);
        world.expect_sound();
    }
}

#[test]
fn followers_that_lack_the_same_get_the_same_batch() {
    let (mut world, members) = group::<Ours>(5, Settings::default(), Quality::GOOD);
    (world.encoded, world.urgent) = (0, 0);
    world.said = Some(Vec::new());
    world.append_many(members[0], 20);
    world.run_for(Micros(2_000));
    let mut copies = Vec::new();
    for (_, _, message) in world.said.take().unwrap() {
        if let Body::Append { batch, .. } = &message.body {
            copies.extend(batch.entries().first().map(|(_, entry)| Arc::as_ptr(entry) as usize));
        }
    }
    copies.sort_unstable();
    let messages = copies.len();
    copies.dedup();
    assert_eq!(messages, 4 * copies.len(), "each entry goes to four followers, and there is one of it");
    assert!(copies.len() <= 3, "twenty appended at once go in few messages");
    world.expect_sound();
}

#[test]
fn no_more_is_under_way_than_the_settings_say() {
    let settings =
        Settings { in_flight_bytes: 50_000, batch_bytes: 5_000, resend_after: millis(10_000), ..Settings::default() };
    let (mut world, members) = group::<Ours>(3, settings, Quality::GOOD);
    world.network.cut(members[1], members[0]);
    let before = world.traffic.bytes;
    for _ in 0..200 {
        world.append_many(members[0], 10);
        world.run_for(Micros(1_000));
    }
    // 200 kB were appended. One follower got all of it, the other one no more than was allowed.
    let sent = world.traffic.bytes - before;
    assert!((240_000..=260_000).contains(&sent), "{sent} bytes were sent");
    world.network.heal();
    assert!(world.run_until(millis(1_000), all_alike));
    world.expect_sound();
}

#[test]
fn a_big_entry_that_small_ones_overtake_is_sent_once() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    let before = world.traffic.bytes;
    let big = 16 << 20;
    world.append_many(members[0], 10);
    let _ = world.append(members[0], big);
    for _ in 0..10 {
        world.run_for(Micros(1_000));
        world.append_many(members[0], 10);
    }
    assert!(world.run_until(millis(200), all_alike), "it took about 16 ms on the way");
    let sent = world.traffic.bytes - before;
    assert!(sent < 2 * big + 100_000, "{sent} bytes were sent to two followers");
    world.expect_sound();
}

#[test]
fn what_is_lost_is_sent_again_and_little_else() {
    // Streams between peers lose and reorder only where one ends and the next begins.
    let rough = Quality { jitter: Micros(2_000), lost: 2, doubled: 2, ..Quality::GOOD };
    for (quality, most) in [(Quality::GOOD, 101), (rough, 400)] {
        let settings = Settings { batch_bytes: 1_000, ..Settings::default() };
        let (mut world, members) = group::<Ours>(3, settings, Quality::GOOD);
        world.network.quality = quality;
        let before = world.traffic;
        for _ in 0..500 {
            world.append_many(members[0], 20);
            world.run_for(Micros(2_000));
        }
        assert!(world.run_until(millis(5_000), all_alike));
        let sent = (world.traffic.entries - before.entries) * 100 / (2 * 500 * 20);
        println!("{quality:?}: {sent} % of the entries were sent");
        assert!(sent <= most, "{sent} % of the entries were sent");
        world.expect_sound();
    }
}

#[test]
fn a_newcomer_does_not_start_a_storm() {
    for quality in [Quality::GOOD, Quality { lost: 0, ..Quality::BAD }] {
        let settings = Settings { batch_bytes: 1_000, keep_bytes: u64::MAX, ..Settings::default() };
        let (mut world, members) = group::<Ours>(1, settings, Quality::GOOD);
        world.append_many(members[0], 5_000);
        world.network.quality = quality;
        let newcomer = crate::world::member(1, 0);
        world.join(newcomer);
        let mut target = world.port(members[0]).membership().clone();
        target.learners.insert(newcomer, false);
        assert!(world.propose(members[0], target));
        assert!(world.run_until(millis(10_000), all_alike));
        let sent = world.traffic.entries * 100 / 5_000;
        println!("{quality:?}: a newcomer was sent {sent} % of what it lacked, by {}", world.now.0);
        assert!(sent <= 1_000, "a newcomer was sent {sent} % of what it lacked");
        world.expect_sound();
    }
}

#[test]
fn a_failover_takes_as_long_as_the_settings_say() {
    let mut longest = Micros(0);
    for seed in 0..50 {
        let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
        world.run_for(Micros(seed * 1_337));
        let at = world.now;
        world.crash(members[0]);
        assert!(world.run_until(millis(3_000), |world| world.leader().is_some()));
        longest = longest.max(world.now.since(at));
    }
    println!("the longest of 50 failovers took {} ms", longest.as_millis());
    // The election time, twice its random part where two stand at once, and a few ways to and fro.
    assert!(longest <= millis(1_300), "{} ms", longest.as_millis());
}
