//! The named bounds of the transport: every queue, map, retry and wait has one.
//!
//! It refuses to hold bounds that other parts must agree on; those live in `driftmesh_model::limits`.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The version of the wire protocol. Peers of different versions refuse each other. It goes up with each release in which
/// anything changes that peers say; all peers of a mesh run one build between releases.
pub const PROTOCOL_VERSION: u32 = 2;

/// Largest payload, bytes.
pub const MAX_PAYLOAD: usize = driftmesh_model::limits::MESSAGE_BYTES_MAX;
/// Largest payload that travels as one frame, and the size of the pieces of larger ones, bytes. At 1 Gbit/s a
/// small payload waits about half a millisecond for one piece.
pub const CHUNK: usize = 64 << 10;
/// Most payloads handed to [`super::Handler::received`] at once.
pub const RECEIVE_BATCH: usize = 64;

/// Most small payloads (up to [`CHUNK`]) queued for one peer, and most of those in haste.
pub const SMALL_QUEUE_PAYLOADS: usize = 16_384;
/// Most bytes of small payloads queued for one peer.
pub const SMALL_QUEUE_BYTES: usize = 8 << 20;
/// Most large payloads queued for one peer.
pub const BULK_QUEUE_PAYLOADS: usize = 64;
/// Most bytes of large payloads queued for one peer: three of the largest and some.
pub const BULK_QUEUE_BYTES: usize = 64 << 20;
/// Most round trips under way to one peer.
pub(super) const PINGS_MAX: usize = 16;
/// Most frames of control queued for one peer: all round trips that either side may have under way, and some signs of life.
/// Who takes none for so long misses the next one.
pub(super) const CONTROL_QUEUE_FRAMES: usize = 2 * PINGS_MAX + 4;

/// Chunks that may be under way without the receiver's credit. Without it the socket's buffers would take
/// megabytes of a large payload, and every small one would wait behind them.
pub(super) const BULK_WINDOW_CHUNKS: u32 = 4;
/// Small payloads are framed up to this size before one write, bytes.
pub(super) const WRITE_BYTES: usize = 64 << 10;
/// So much of each write is for those that are not in haste, if they wait, bytes.
pub(super) const SMALL_SHARE: usize = 16 << 10;
/// What an idle writer keeps of its buffer, bytes.
pub(super) const WRITE_BYTES_KEPT: usize = 16 << 10;
/// A reader's first buffer, bytes; it doubles while it is full.
pub(super) const READ_BYTES_MIN: usize = 8 << 10;
/// A reader's largest buffer, bytes. It holds any one frame.
pub(super) const READ_BYTES_MAX: usize = 128 << 10;

/// Most admitted peers.
pub const PEERS_MAX: usize = 1_024;
/// Most handshakes under way at once, each way.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// How long a connection may be without an admission: the wait for a substream, and the handshake.
pub(super) const ADMISSION_TIMEOUT: Duration = Duration::from_secs(7);
/// A handshake that takes longer is refused and its connection closed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest body of a frame of the handshake, bytes.
pub(super) const HANDSHAKE_BODY_MAX: usize = 16 << 10;
/// The wait between two attempts to open the substream of one connection.
pub(super) const OPEN_AGAIN: Duration = Duration::from_millis(500);
/// How long the higher of two peers waits for the lower one's substream before it opens one itself. The lower one
/// does not open any while it takes a dead session for a living one, for example after the higher one's restart.
pub(super) const OPEN_FALLBACK: Duration = Duration::from_secs(1);
/// How often a substream is opened again when the other side dropped it unread.
pub(super) const OPEN_ATTEMPTS: u32 = 6;
/// The wait before the second attempt to open a substream; it doubles.
pub(super) const OPEN_RETRY_DELAY: Duration = Duration::from_millis(20);
/// How long a refusing side waits for the other to read the reason.
pub(super) const REFUSAL_LINGER: Duration = Duration::from_millis(500);

/// Longest mesh name, bytes.
pub const MESH_NAME_BYTES_MAX: usize = 64;
/// Longest opaque hello payload, bytes.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Most addresses that a peer tells of itself.
pub const ADDRESSES_MAX: usize = 16;
/// Longest binary multiaddress that is told or believed, bytes.
pub(super) const ADDRESS_BYTES_MAX: usize = 128;

/// The time between two signs of life.
pub(super) const ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A peer from which nothing came for so long is lost: three signs of life, and slack for a busy machine.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Longest time for which a test may hold back what is sent: well below the silence that ends a connection.
#[cfg(feature = "testing")]
pub(super) const HOLD_MAX: Duration = Duration::from_secs(10);

/// The first wait before an address is dialled again; it doubles.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait before an address is dialled again.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A lost or announced peer that could not be reached for so long is given up.
pub(super) const REDIAL_FOR: Duration = Duration::from_secs(60);
/// Most peers that are being redialled.
pub(super) const REDIALS_MAX: usize = 2_048;
/// Most dials under way at once.
pub(super) const DIALS_MAX: usize = 64;
/// Of two peers that may hear of each other at once, the higher waits so long, so that they do not both dial. Short,
/// because mostly only one of them hears of the other.
pub(super) const DIAL_STAGGER: Duration = Duration::from_millis(100);
/// Most `join` addresses.
pub const JOIN_ADDRESSES_MAX: usize = 256;
/// How often due dials are looked for. No payload waits for it.
pub(super) const DIAL_TICK: Duration = Duration::from_millis(50);
/// Longest resolution of a host name.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two events that tell of the same unreachable address.
pub(super) const UNREACHABLE_INTERVAL: Duration = Duration::from_secs(5);
/// Most unreachable addresses remembered for that; beyond it events are left out.
pub(super) const UNREACHABLE_REMEMBERED: usize = 4_096;
/// How long a peer that said goodbye is not dialled on hearsay: by then nobody tells of it any more.
pub(super) const DEPARTED_FOR: Duration = Duration::from_secs(30);
/// How long a peer that refused, or was refused, is not dialled on hearsay.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(600);
/// Most peers remembered as not to be dialled on hearsay.
pub(super) const SHUNNED_REMEMBERED: usize = 4_096;

/// Most peers heard of by mDNS that are dialled until they are admitted. Beyond it those that failed make way.
pub(super) const NEARBY_MAX: usize = 1_024;
/// Most of them at one IP address, so that one machine cannot take all places.
pub(super) const NEARBY_PER_HOST_MAX: usize = 128;
/// Most dials of them under way at once; the rest of [`DIALS_MAX`] is for join addresses and known peers.
pub(super) const NEARBY_DIALS_MAX: usize = 16;
/// The longest wait before one of them is dialled again.
pub(super) const NEARBY_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Most peers remembered as dialled because of mDNS only; of the others' refusals the user is told.
pub(super) const UNASKED_REMEMBERED: usize = 2_048;
/// Most foreign meshes remembered as told to the user; beyond it others are not told.
pub(super) const OTHER_MESHES_REMEMBERED: usize = 64;
/// How long others may believe that a peer still listens after it was last heard by mDNS.
pub(super) const MDNS_TTL: Duration = Duration::from_secs(90);
/// The time between two questions by mDNS, on one network and whoever asks; at the start they come faster.
pub(super) const MDNS_QUERY_INTERVAL: Duration = Duration::from_secs(30);
/// Most addresses heard by mDNS that are kept, ours and those of other programs.
pub(super) const MDNS_HEARD_MAX: usize = 4_096;
/// How long mDNS pauses when more was heard.
pub(super) const MDNS_DEAF_FOR: Duration = Duration::from_secs(30);

/// Longest routing message, bytes: 20 peers with all their addresses.
pub(super) const KADEMLIA_PACKET_BYTES_MAX: usize = 64 << 10;
/// Most peers that one query asks at once. High, because unknown ones are dialled on the way.
pub(super) const QUERY_PARALLELISM: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");
/// A query that takes longer ends with what it found.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most routing messages of one connection in a period, both ways together; what comes beyond waits.
pub(super) const ROUTING_EVENTS_MAX: u32 = 512;
/// That period.
pub(super) const ROUTING_EVENTS_PERIOD: Duration = Duration::from_secs(1);
/// How long after its first admission a peer explores: the other side must have noticed the admission too.
pub(super) const EXPLORE_AFTER: Duration = Duration::from_millis(100);
/// How long after an exploration that found somebody the next one begins.
pub(super) const EXPLORE_AGAIN: Duration = Duration::from_secs(1);
/// Most explorations in a row; afterwards refreshes find who is missing.
pub(super) const EXPLORE_ROUNDS_MAX: u32 = 5;
/// Most queries of an exploration at once.
pub(super) const EXPLORE_QUERIES_MAX: usize = 4;
/// The bits of the smallest region that is explored: a mesh of [`PEERS_MAX`] has 1 peer there.
pub(super) const REGION_BITS_MAX: u32 = 10;
/// How many peers a region has in a refresh, about: so few that one answer of 20 tells all of them.
pub(super) const REGION_PEERS: usize = 8;
/// The time between two refreshes, about.
pub(super) const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// How long after an admission a refresh comes at the latest, about.
pub(super) const REFRESH_AFTER_JOIN: Duration = Duration::from_secs(3);
/// How many peers a lookup finds.
pub const FIND_RESULTS: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");
/// Most lookups at once.
pub const FINDS_MAX: usize = 16;
/// Most incarnations remembered as replaced by a newer one.
pub(super) const SUPERSEDED_REMEMBERED: usize = 4_096;

/// How long a shutdown waits for queued payloads and goodbyes to be taken.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a start waits for a listener to be bound.
pub(super) const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Long, because only duplicate connections are ever without a substream: they must not vanish in a handshake.
pub(super) const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Most messages from connections to the swarm's task that wait.
pub(super) const COMMANDS_MAX: usize = 1_024;
/// Most yamux streams of one connection; beyond it yamux ends the connection. One is used, a second for a moment when
/// it is replaced, and Kademlia uses 32 at most each way for moments.
pub(super) const YAMUX_STREAMS_MAX: usize = 128;
/// Most connections altogether.
pub(super) const CONNECTIONS_MAX: usize = PEERS_MAX * 2 + HANDSHAKES_MAX;
/// Most connections of one peer: two simultaneous dials, and the dead ones they replace.
pub(super) const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Most inbound connections that have not finished their encryption handshake.
pub(super) const PENDING_INBOUND_MAX: usize = 256;
/// Those of one host: an IPv4 address, or a network of IPv6. All peers of one machine share it.
pub(super) const PENDING_PER_HOST_MAX: usize = 128;
/// Most connections of one host that are encrypted and not admitted.
pub(super) const UNADMITTED_PER_HOST_MAX: usize = 256;
/// Most inbound connections of one host that come at once ...
pub(super) const CONNECTIONS_PER_HOST_BURST: u32 = 512;
/// ... and the time after which one more may come.
pub(super) const CONNECTIONS_PER_HOST_INTERVAL: Duration = Duration::from_millis(15);
/// Most hosts of which connections are counted; beyond it the bounds on all together hold.
pub(super) const HOSTS_REMEMBERED: usize = 4_096;
/// Most handshakes under way at once that one host began.
pub(super) const HANDSHAKES_PER_HOST_MAX: usize = 48;

/// Most frames of one member in a second; what is beyond waits in its connection.
pub const INBOUND_FRAMES_PER_S: u64 = 100_000;
/// Most bytes of one member in a second.
pub const INBOUND_BYTES_PER_S: u64 = 256 << 20;
/// The messages of one member may hold the core for one part in so many of the time.
pub const INBOUND_HELD_SHARE: u32 = 2;
/// How much of that may be taken at once.
pub(super) const INBOUND_BURST: Duration = Duration::from_secs(1);
/// Shorter pauses are not worth a timer; they add up.
pub(super) const INBOUND_PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause; what was taken beyond is forgiven.
pub(super) const INBOUND_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Most things that no peer says, of one member, that are not forgiven yet. One more, and it is dropped.
pub const OFFENCES_MAX: u32 = 32;
/// After so long one of them is forgiven.
pub const OFFENCE_FORGIVEN_AFTER: Duration = Duration::from_secs(1);
/// How long a member that was dropped is refused the first time; it doubles.
pub const DROPPED_FOR: Duration = Duration::from_secs(60);
/// How long it is refused at most.
pub const DROPPED_FOR_MAX: Duration = Duration::from_secs(900);
/// Most members of which it is remembered.
pub(super) const OFFENDERS_REMEMBERED: usize = 4_096;
/// Most of them that are shown.
pub(super) const OFFENDERS_SHOWN: usize = 16;

/// The time between two tellings of all fresh peers that are known; they are also the sign of life.
pub(super) const FRESH_TELL_INTERVAL: Duration = Duration::from_secs(5);
/// Most links to fresh peers, while this one is fresh.
pub(super) const FRESH_LINKS_MAX: usize = 256;
/// Most frames queued for one fresh peer; what does not fit is lost, as on a bad network.
pub(super) const FRESH_QUEUE_FRAMES: usize = 256;
/// Most fresh peers in one frame, so that the largest fits.
pub(super) const FRESH_RECORDS_PER_FRAME: usize = 16;
/// Longest message of the founding, bytes.
pub const FOUNDING_BYTES_MAX: usize = 1 << 10;

const _: () = assert!(CHUNK + super::frame::HEADER_BYTES <= READ_BYTES_MAX);
const _: () = assert!(HANDSHAKE_BODY_MAX <= CHUNK);
const _: () = assert!(HELLO_BYTES_MAX + ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 8) + 512 <= HANDSHAKE_BODY_MAX);
const _: () = assert!(FRESH_RECORDS_PER_FRAME * (ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 8) + 128) + 64 <= CHUNK);
const _: () = assert!(FOUNDING_BYTES_MAX + 64 <= CHUNK);
// A peer's id is in each of its addresses and stands before them; 20 peers are in an answer.
const _: () = assert!(20 * (ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 48) + 64) + 64 <= KADEMLIA_PACKET_BYTES_MAX);
const _: () = assert!(PENDING_PER_HOST_MAX < PENDING_INBOUND_MAX && UNADMITTED_PER_HOST_MAX < CONNECTIONS_MAX);
const _: () = assert!(HANDSHAKES_PER_HOST_MAX < HANDSHAKES_MAX);
const _: () = assert!(DROPPED_FOR.as_secs() <= DROPPED_FOR_MAX.as_secs());
const _: () = assert!(NEARBY_DIALS_MAX < DIALS_MAX && NEARBY_PER_HOST_MAX < NEARBY_MAX);
const _: () = assert!(MAX_PAYLOAD <= BULK_QUEUE_BYTES && MAX_PAYLOAD <= u32::MAX as usize);
