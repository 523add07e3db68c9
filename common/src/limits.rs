//! Bounds of everything that is shared between kernel and agent. Relations are asserted at compile time.

/// Records in the port array: index 0 is control and probes, ports and flood sets start at 1.
pub const PORTS_MAX: u32 = 4096;
/// Slots (immutable action records) of one agent: twice the flows, since a slot rests before it is used again.
pub const SLOTS_MAX: u32 = 1 << 18;
/// Megaflows over IPv4, ARP and all that isn't IPv6.
pub const MEGAFLOWS_V4_MAX: u32 = 1 << 17;
/// Megaflows over IPv6.
pub const MEGAFLOWS_V6_MAX: u32 = 1 << 17;
/// Masks per family: a port's set of masks is one 64-bit word.
pub const MASKS_MAX: u32 = 64;
/// Masks per family that the flows of one tenant may use, besides the one of all bits.
pub const MASKS_PER_TENANT_MAX: usize = 16;
/// Microflow cache entries per CPU; a power of two, since the hash is masked with it.
pub const CACHE_ENTRIES_PER_CPU: u32 = 1 << 14;
/// Interfaces are found by `ifindex % INTERFACES_MAX`; the record holds the full index.
pub const INTERFACES_MAX: u32 = 1 << 16;
/// Remote underlay addresses.
pub const PEERS_MAX: u32 = 1024;
/// Published flood lists.
pub const FLOOD_LISTS_MAX: u32 = 2048;
/// Local ports in one flood list.
pub const FLOOD_LOCALS_MAX: usize = 64;
/// Remote hosts in one flood list.
pub const FLOOD_REMOTES_MAX: usize = 64;
/// Select groups: sets of decisions of which the kernel takes one by the packet's hash.
pub const SELECT_GROUPS_MAX: u32 = 1024;
/// Buckets of a select group.
pub const SELECT_BUCKETS: u32 = 256;
/// Choices in a row that one packet may meet.
pub const SELECT_DEPTH_MAX: u32 = 3;
/// Next hops of one route: routes with equal prefixes and weight.
pub const NEXT_HOPS_MAX: usize = 16;
/// Ways that the choices of one decision may lead to in all.
pub const WAYS_MAX: usize = 64;
/// Most bytes of a packet that one miss event carries.
pub const MISS_BYTES_MAX: u32 = 65_000;
/// Misses that one port may send up per second, on average. Little, so that a port that never stops takes a tenth of
/// a CPU from the others; what a port may do at once is [`MISS_BURST`].
pub const MISS_RATE_PER_SEC: u64 = 5_000;
/// Misses that one port may send up at once: new connections come in bursts.
pub const MISS_BURST: u64 = 16_000;
/// Misses that one port may send up above its rate and still wake the agent with each. Those beyond are read in
/// batches: a wake-up for each would slow the sender to the agent's speed.
pub const MISSES_EAGER: u64 = 64;
/// Misses of one port that wait for the agent to decide on them.
pub const MISSES_QUEUED_PER_PORT_MAX: usize = 16_384;
/// Bytes of packets that wait for a decision, of one port.
pub const MISS_BYTES_QUEUED_PER_PORT_MAX: usize = 4 << 20;
/// Bytes of packets that wait for a decision, of all ports.
pub const MISS_BYTES_QUEUED_MAX: usize = 64 << 20;
/// Packets that one port may send up per second, on average, because a flow's guard failed or the flow says so.
pub const GUARD_RATE_PER_SEC: u64 = 2_000;
/// Packets that one port may send up at once for that.
pub const GUARD_BURST: u64 = 500;
/// ICMP errors and TCP resets that the network makes per second because of one port's packets, on average.
pub const ERROR_RATE_PER_SEC: u64 = 100;
/// ICMP errors and TCP resets that the network makes at once because of one port's packets.
pub const ERROR_BURST: u64 = 100;
/// Packets that wait for one unresolved next hop.
pub const WAITING_PER_NEIGHBOUR_MAX: usize = 8;
/// Packets that wait for next hops in all.
pub const WAITING_MAX: usize = 1024;
/// Next hops that are remembered not to have answered.
pub const UNREACHABLE_MAX: usize = 4096;
/// Seconds before a (port index, generation) may be used again: a late packet never meets another owner.
pub const TUNNEL_KEY_REUSE_SECS_MIN: u64 = 600;
/// Seconds after its last packet at which a flow is removed.
pub const FLOW_IDLE_TIMEOUT_SECS: u64 = 60;
/// Seconds between the retirement of a slot and its next use.
pub const SLOT_GRACE_SECS: u64 = 2;
/// Packets in fragments whose first fragment is remembered, over all ports.
pub const FRAGMENTS_MAX: u32 = 1 << 14;
/// Seconds for which a first fragment is remembered: as long as Linux waits for the rest (RFC 791 asks for 15 at least,
/// RFC 8200 for 60 at most).
pub const FRAGMENT_TIMEOUT_SECS: u64 = 30;
/// Connections over IPv4 that both sides take part in, of all ports: what the map is made for unless the agent says
/// otherwise. 192 bytes each.
pub const CONNECTIONS_V4_MAX: u32 = 1 << 17;
/// The same over IPv6. 216 bytes each.
pub const CONNECTIONS_V6_MAX: u32 = 1 << 16;
/// Connections over IPv4 that nobody has answered yet, of all ports: a flood displaces the oldest ones.
pub const HALF_OPEN_V4_MAX: u32 = 1 << 16;
/// The same over IPv6.
pub const HALF_OPEN_V6_MAX: u32 = 1 << 15;
/// Connections of one tenant that both sides take part in, on one host: half of what the table for IPv4 has room for.
pub const CONNECTIONS_PER_TENANT_MAX: u64 = CONNECTIONS_V4_MAX as u64 / 2;
/// Tenants with ports on one host, and number 0, which is none.
pub const TENANTS_MAX: u32 = PORTS_MAX;
/// MACs learned on one port.
pub const MACS_PER_PORT_MAX: usize = 1024;
/// Seconds after which a learned MAC that no flow uses is forgotten.
pub const MAC_IDLE_TIMEOUT_SECS: u64 = 300;
/// Addresses that the kernel answers for, over all networks with ports on one host: the agent answers for the rest.
pub const NEIGHBOURS_MAX: u32 = 1 << 16;
/// Rules of a port's hook once its chains are flattened: a jump counts its target's rules each time.
pub const POLICY_RULES_MAX: usize = 4096;
/// Blocks of 64 rules in a vector of a compiled ACL: one summary word has a bit for each.
pub const POLICY_BLOCKS_MAX: usize = POLICY_RULES_MAX / 64;
/// Steps that one lookup in a compiled ACL may make behind rules that don't end it (log, return, guards).
pub const POLICY_HOPS_MAX: usize = 64;
/// Classes of packets that a compiled ACL tells apart in one dimension.
pub const POLICY_CLASSES_MAX: usize = 1 << 14;
/// Words of 64 bits that the vectors of one compiled ACL may take: 8 MiB.
pub const POLICY_WORDS_MAX: usize = 1 << 20;
/// Different masks of MAC addresses that the rules of one compiled ACL may have, sources and destinations together.
pub const POLICY_MAC_MASKS_MAX: usize = 8;
/// Values in one condition: compiling a rule takes time with their square. More addresses are a group.
pub const POLICY_VALUES_MAX: usize = 256;
/// Inverted conditions, or groups of them, of one rule: a jump takes them along to each rule of its target.
pub const POLICY_NOT_MAX: usize = 16;
/// Chains that may be inside each other by jumps.
pub const POLICY_DEPTH_MAX: usize = 32;
/// Address and port groups that one address may be in, of all tenants' that policies on a host use.
pub const GROUPS_PER_ADDRESS_MAX: usize = 32;
/// Compiled ACLs of one host: each port may have two of its own. Number 0 isn't used.
pub const ACLS_MAX: u32 = 2 * PORTS_MAX;
/// Prefixes of sets that the policies of one host ask for.
pub const ACL_SETS_MAX: u32 = 1 << 18;
/// Prefixes in one address group.
pub const ADDRESS_GROUP_MEMBERS_MAX: usize = 100_000;

// A port's policy names an ACL in 16 bits.
const _: () = assert!(ACLS_MAX <= 1 << 16);
const _: () = assert!(POLICY_BLOCKS_MAX <= u64::BITS as usize);
const _: () = assert!(POLICY_RULES_MAX.is_multiple_of(64) && POLICY_RULES_MAX < u16::MAX as usize);
// Three boundaries for each of the rules: prefixes and their outside, ranges and what is between them.
const _: () = assert!(POLICY_CLASSES_MAX > 3 * POLICY_RULES_MAX && POLICY_CLASSES_MAX <= 1 << 16);
const _: () = assert!(CACHE_ENTRIES_PER_CPU.is_power_of_two());
const _: () = assert!(NEXT_HOPS_MAX <= SELECT_BUCKETS as usize && NEXT_HOPS_MAX <= WAYS_MAX);
const _: () = assert!(PORTS_MAX <= crate::tunnel::INDEX_MAX as u32 + 1);
const _: () = assert!(MASKS_MAX <= u64::BITS);
const _: () = assert!(MASKS_PER_TENANT_MAX < MASKS_MAX as usize);
// Either family may have every flow, and a slot that rests doesn't keep a flow from getting one.
const _: () = assert!(MEGAFLOWS_V4_MAX == MEGAFLOWS_V6_MAX && 2 * MEGAFLOWS_V4_MAX <= SLOTS_MAX);
const _: () = assert!(GUARD_RATE_PER_SEC < MISS_RATE_PER_SEC);
const _: () = assert!(ERROR_RATE_PER_SEC < GUARD_RATE_PER_SEC);
const _: () = assert!(WAITING_PER_NEIGHBOUR_MAX <= WAITING_MAX);
const _: () = assert!(MISS_BYTES_QUEUED_PER_PORT_MAX <= MISS_BYTES_QUEUED_MAX);
const _: () = assert!(MISS_BURST <= MISSES_QUEUED_PER_PORT_MAX as u64);
const _: () = assert!(MISS_BYTES_MAX as usize <= MISS_BYTES_QUEUED_PER_PORT_MAX);
const _: () = assert!(SLOT_GRACE_SECS < FLOW_IDLE_TIMEOUT_SECS);
