//! `cargo testnet bench remote`: what a transaction on objects elsewhere costs, in bare round trips of the very same
//! connection, measured in turns with it.
//!
//! Six peers in this process, each on a runtime and a TCP connection of its own. One asks, another owns. Figures are
//! medians of a closed loop with one transaction at a time, commit included. It refuses to report anything when an
//! object is not where it should be.

use crate::latency::Latencies;
use crate::output;
use anyhow::{Context, Result, bail};
use driftmesh::{Mesh, Object, Ref};
use driftmesh_directory::HomeRing;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Peers; more than an object has homes, so that the asker need not be one.
const PEERS: usize = 6;
/// Samples of each kind.
const SAMPLES: usize = 2_000;
/// Objects in one creating transaction.
const CREATED_AT_ONCE: usize = 500;
/// How long the records of new objects are given to reach their homes.
const SPREAD: Duration = Duration::from_secs(1);

#[derive(Clone, Serialize, Deserialize)]
struct Counter {
    name: String,
    count: u64,
}

impl Object for Counter {
    const TYPE_NAME: &'static str = "counter";
}

/// The figures. Ratios are of medians.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Figures {
    /// A bare round trip, microseconds: the median.
    pub(crate) rtt_us: f64,
    /// Of 100, the slowest but one.
    pub(crate) rtt_p99_us: f64,
    /// A transaction that reads one object elsewhere, whose owner is known.
    pub(crate) fetch_rtts: f64,
    /// A transaction that changes one object elsewhere which nobody has written lately.
    pub(crate) own_clean_rtts: f64,
    /// The same where its owner has just written it.
    pub(crate) own_dirty_rtts: f64,
    /// A transaction that reads one object of which the asker knows nothing and is no home.
    pub(crate) lookup_cold_rtts: f64,
    /// Of 100 of each, the slowest but one, microseconds.
    pub(crate) fetch_p99_us: f64,
    /// As `fetch_p99_us`.
    pub(crate) own_clean_p99_us: f64,
    /// As `fetch_p99_us`.
    pub(crate) own_dirty_p99_us: f64,
    /// As `fetch_p99_us`.
    pub(crate) lookup_cold_p99_us: f64,
}

/// A peer with a runtime of its own, so that two peers never share a thread.
struct Seat {
    mesh: Mesh,
    runtime: tokio::runtime::Runtime,
}

/// Measures and prints.
pub(crate) fn run() -> Result<Figures> {
    let seats = start()?;
    let figures = measure(&seats)?;
    tell(&figures);
    for seat in seats {
        seat.runtime.block_on(seat.mesh.shutdown());
    }
    Ok(figures)
}

fn start() -> Result<Vec<Seat>> {
    let mut seats: Vec<Seat> = Vec::with_capacity(PEERS);
    for _ in 0..PEERS {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut builder = Mesh::builder();
        if let Some(first) = seats.first() {
            builder = builder.join(first.mesh.addresses().first().context("the first peer has no address")?);
        }
        let mesh = runtime.block_on(builder.start()).context("cannot start a peer")?;
        seats.push(Seat { mesh, runtime });
    }
    for seat in &seats {
        seat.runtime.block_on(seat.mesh.wait_for_peers(PEERS - 1));
    }
    Ok(seats)
}

/// Creates objects at a seat.
fn create(seat: &Seat, count: usize) -> Result<Vec<Ref<Counter>>> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let created = seat.mesh.transact(|tx| async move {
            let new = |number: usize| tx.create(&Counter { name: format!("counter {number}"), count: 0 });
            (0..CREATED_AT_ONCE).map(new).collect::<driftmesh::Result<Vec<_>>>()
        });
        all.append(&mut seat.runtime.block_on(created).context("cannot create objects")?);
    }
    Ok(all)
}

async fn read(mesh: &Mesh, counter: Ref<Counter>) -> Result<u64> {
    mesh.transact(|tx| async move { Ok(tx.get(counter).await?.count) }).await.context("a read failed")
}

async fn raise(mesh: &Mesh, counter: Ref<Counter>) -> Result<()> {
    let raised = mesh.transact(|tx| async move {
        tx.get_mut(counter).await?.count += 1;
        Ok(())
    });
    raised.await.context("a change failed")
}

/// Latencies of bare round trips and of what is measured in turns with them.
#[derive(Default)]
struct Both {
    bare: Latencies,
    measured: Latencies,
}

impl Both {
    /// The median in bare round trips.
    fn ratio(&self) -> f64 {
        let ratio = self.measured.at_quantile_us(0.5) / self.bare.at_quantile_us(0.5);
        (ratio * 1_000.0).round() / 1_000.0
    }
}

/// Measures something for each object, in turns with bare round trips to its owner. `before` is not measured.
fn in_turns<B, W>(
    asker: &Seat,
    owner: &Seat,
    objects: &[Ref<Counter>],
    before: impl Fn(Ref<Counter>) -> B,
    what: impl Fn(Ref<Counter>) -> W,
) -> Result<Both>
where
    B: Future<Output = Result<()>>,
    W: Future<Output = Result<()>>,
{
    let mut both = Both::default();
    for object in objects {
        owner.runtime.block_on(before(*object))?;
        asker.runtime.block_on(async {
            both.bare.record(asker.mesh.ping(owner.mesh.peer_id()).await.context("the owner does not answer")?);
            let begun = Instant::now();
            what(*object).await?;
            both.measured.record(begun.elapsed());
            anyhow::Ok(())
        })?;
    }
    Ok(both)
}

fn measure(seats: &[Seat]) -> Result<Figures> {
    let (asker, owner) = (&seats[0], &seats[1]);
    let nothing = |_| async { Ok(()) };
    let reads = |object| async move { read(&asker.mesh, object).await.map(|_| ()) };
    let raises = |object| raise(&asker.mesh, object);
    let known = create(owner, 2 * SAMPLES)?;
    let cold = strange_to(seats, create(owner, 4 * SAMPLES)?)?;
    std::thread::sleep(SPREAD);
    for object in &known {
        // Now the asker knows where they are.
        asker.runtime.block_on(read(&asker.mesh, *object))?;
    }
    let (clean, dirty) = known.split_at(SAMPLES);
    let fetch = in_turns(asker, owner, clean, nothing, reads)?;
    let own_clean = in_turns(asker, owner, clean, nothing, raises)?;
    let own_dirty = in_turns(asker, owner, dirty, |object| raise(&owner.mesh, object), raises)?;
    let lookup_cold = in_turns(asker, owner, &cold, nothing, reads)?;
    check_owners(asker, clean, 1)?;
    check_owners(asker, dirty, 2)?;
    let mut bare = Latencies::default();
    for both in [&fetch, &own_clean, &own_dirty, &lookup_cold] {
        bare.merge(&both.bare);
    }
    Ok(Figures {
        rtt_us: bare.at_quantile_us(0.5),
        rtt_p99_us: bare.at_quantile_us(0.99),
        fetch_rtts: fetch.ratio(),
        own_clean_rtts: own_clean.ratio(),
        own_dirty_rtts: own_dirty.ratio(),
        lookup_cold_rtts: lookup_cold.ratio(),
        fetch_p99_us: fetch.measured.at_quantile_us(0.99),
        own_clean_p99_us: own_clean.measured.at_quantile_us(0.99),
        own_dirty_p99_us: own_dirty.measured.at_quantile_us(0.99),
        lookup_cold_p99_us: lookup_cold.measured.at_quantile_us(0.99),
    })
}

/// Those of the objects whose records are not kept by the asker.
fn strange_to(seats: &[Seat], mut objects: Vec<Ref<Counter>>) -> Result<Vec<Ref<Counter>>> {
    let mut ring = HomeRing::default();
    seats.iter().for_each(|seat| ring.add(seat.mesh.peer_id()));
    let asker = seats[0].mesh.peer_id();
    objects.retain(|object| !ring.homes(object.id()).contains(&asker));
    objects.truncate(SAMPLES);
    if objects.len() < SAMPLES {
        bail!("only {} of the objects are strange to the asker", objects.len());
    }
    Ok(objects)
}

/// The asker must own what it changed, with all changes in it.
fn check_owners(asker: &Seat, objects: &[Ref<Counter>], count: u64) -> Result<()> {
    for object in objects {
        let found = asker.runtime.block_on(read(&asker.mesh, *object))?;
        if found != count || !asker.mesh.is_owned(object.id()) {
            bail!("object {object} says {found} instead of {count}, or did not move");
        }
    }
    Ok(())
}

fn tell(figures: &Figures) {
    let Figures { rtt_us, rtt_p99_us, .. } = figures;
    output::line(&format!("bare round trip: p50 {rtt_us} us, p99 {rtt_p99_us} us"));
    output::line(&format!("{:>24}  {:>11}  {:>10}", "one object elsewhere", "round trips", "p99 us"));
    let row = |name: &str, ratio: f64, p99: f64| output::line(&format!("{name:>24}  {ratio:>11.2}  {p99:>10}"));
    row("read, owner known", figures.fetch_rtts, figures.fetch_p99_us);
    row("change, clean", figures.own_clean_rtts, figures.own_clean_p99_us);
    row("change, just written", figures.own_dirty_rtts, figures.own_dirty_p99_us);
    row("read, nothing known", figures.lookup_cold_rtts, figures.lookup_cold_p99_us);
    output::line("medians of whole transactions, in medians of bare round trips on the same connection, in turns");
}
