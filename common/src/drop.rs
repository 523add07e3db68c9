//! Why a packet was dropped: one list for kernel and agent, counted per port.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// Why a packet was dropped. The numbers are part of the ABI; the names are what `weft drops` prints.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name = $number,)+ }

        impl DropReason {
            /// Every reason, in order of its number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The reason's name in output, snake case.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)+ }
            }

            /// What happened, in a sentence for the person who reads `weft drops`.
            pub const fn explanation(self) -> &'static str {
                match self { $(DropReason::$name => concat!($($doc),+),)+ }
            }

            /// The reason with this number, or none.
            pub const fn from_number(number: u8) -> Option<DropReason> {
                match number { $($number => Some(DropReason::$name),)+ _ => None }
            }
        }
    };
}

drop_reasons! {
    /// The frame ended inside a header.
    Truncated = 1, "truncated";
    /// An IP header's version, or a length that it gives, is impossible.
    BadHeader = 2, "bad_header";
    /// The frame came from an interface to which no port is bound.
    UnboundInterface = 3, "unbound_interface";
    /// The port's token bucket for misses was empty.
    MissRate = 4, "miss_rate";
    /// A miss could not be written to the agent's buffer: the agent is away or too slow.
    MissLost = 5, "miss_lost";
    /// A tunnel packet came from an address that is no host of the zone.
    UnknownHost = 6, "unknown_host";
    /// A tunnel packet named an index to which nothing is bound here.
    UnknownTunnelKey = 7, "unknown_tunnel_key";
    /// A tunnel packet named an earlier owner of its index.
    OldGeneration = 8, "old_generation";
    /// A tunnel packet's GRE key was above 24 bits.
    WideTunnelKey = 9, "wide_tunnel_key";
    /// A tunnel packet carried a state record of a form that isn't known here.
    StateRecord = 10, "state_record";
    /// The packet was larger than what its way carries.
    MtuExceeded = 11, "mtu_exceeded";
    /// The packet could not be put into a tunnel (the kernel refused).
    EncapFailed = 12, "encap_failed";
    /// The packet could not be taken out of its tunnel (the kernel refused).
    DecapFailed = 13, "decap_failed";
    /// The kernel refused to hand the packet to its output interface.
    OutputFailed = 14, "output_failed";
    /// The packet's output port went away between decision and delivery.
    OutputGone = 15, "output_gone";
    /// The remote host has no underlay record: its address is unknown or unreachable.
    PeerUnknown = 16, "peer_unknown";
    /// A held packet named a slot that was given to another decision.
    InjectStale = 17, "inject_stale";
    /// The ingress port is administratively down or has no device.
    PortDown = 18, "port_down";
    /// The egress port is not bound to any host.
    PortUnbound = 19, "port_unbound";
    /// A router had no route to the destination.
    NoRoute = 20, "no_route";
    /// A route said to drop this destination in silence.
    BlackholeRoute = 21, "blackhole_route";
    /// A route said to refuse this destination.
    RejectRoute = 22, "reject_route";
    /// The next hop didn't answer ARP or neighbour discovery.
    NextHopUnresolved = 23, "next_hop_unresolved";
    /// Too many packets waited for next hops already.
    WaitingFull = 24, "waiting_full";
    /// The packet's time to live ended at a router.
    TtlExpired = 25, "ttl_expired";
    /// The packet was for a router's own address and asked for nothing that it serves.
    RouterLocal = 26, "router_local";
    /// The frame's destination MAC isn't the router port's.
    NotForRouter = 27, "not_for_router";
    /// A bridge would have sent the frame back where it came from.
    SamePort = 28, "same_port";
    /// The packet crossed too many devices: the topology has a loop.
    TooManyDevices = 29, "too_many_devices";
    /// An interior port has no peer.
    NoPeer = 30, "no_peer";
    /// The source MAC is a group address, which no sender may have (IEEE 802.3, 3.2.3).
    GroupSource = 31, "group_source";
    /// A destination MAC of IEEE 802.1D, table 7-10, which bridges never forward.
    ReservedGroup = 32, "reserved_group";
    /// The packet's kind is not carried by this device.
    NotCarried = 33, "not_carried";
    /// The agent has no topology yet.
    NoTopology = 34, "no_topology";
    /// An action that this version of the kernel programs doesn't carry out.
    UnknownAction = 35, "unknown_action";
    /// The flow table or the slots are full.
    FlowTableFull = 36, "flow_table_full";
    /// A packet of neighbour discovery that RFC 4861 (6.1, 7.1) refuses: hop limit, checksum, length or addresses.
    BadNd = 37, "bad_nd";
    /// A router doesn't forward packets whose source means something on its own link only (RFC 4291, 2.5.6).
    BeyondScope = 38, "beyond_scope";
    /// A router doesn't forward packets whose source no sender can have: this network, loopback, a group, reserved, or IPv4 mapped into IPv6 (RFC 1812, 5.3.7; RFC 4291, 2.5).
    MartianSource = 39, "martian_source";
    /// An IPv4 header with a wrong checksum came to a router (RFC 1812, 5.2.2).
    BadChecksum = 40, "bad_checksum";
    /// The tenant has as many connections on this host as it may.
    ConnectionQuota = 41, "connection_quota";
    /// The table of connections was full.
    ConnectionTableFull = 42, "connection_table_full";
    /// The port's chains would have needed more steps for the packet than the kernel makes.
    PolicyUnbounded = 43, "policy_unbounded";
    /// More packets of the port waited for the agent's decision than may.
    MissQueueFull = 45, "miss_queue_full";
    /// A tunnel packet was marked on its way by a router in congestion, but its sender doesn't take part in ECN (RFC 6040, 4.2).
    EcnNotCapable = 48, "ecn_not_capable";
    /// A tunnel packet to index 0 was neither a probe nor the answer to one.
    BadProbe = 50, "bad_probe";
    /// An answer to a probe that this host didn't send, or sent too long ago.
    UnaskedProbe = 51, "unasked_probe";
    /// The frame was shorter than the IP packet that its header announced: something cut it on its way here.
    ShortFrame = 52, "short_frame";
    /// An ARP packet that isn't for IPv4 over Ethernet with address lengths 4 and 6 (RFC 826).
    BadArp = 53, "bad_arp";
    /// An IPv6 extension header was longer than its packet, or at a place where it must not be (RFC 8200, 4.1).
    BadExtension = 54, "bad_extension";
    /// An IPv6 packet had more than 6 extension headers, or more than 256 bytes of them.
    TooManyExtensions = 55, "too_many_extensions";
    /// The IP packet was longer than 65,535 bytes: a jumbogram (RFC 2675), or a "BIG TCP" packet of Linux.
    Jumbogram = 56, "jumbogram";
    /// A fragment was empty, not a multiple of 8 bytes, or reached beyond the longest packet (RFC 791, RFC 8200).
    BadFragment = 57, "bad_fragment";
    /// A first fragment without all of its headers, or one that would lie over them (RFC 1858, RFC 7112).
    TinyFragment = 58, "tiny_fragment";
    /// An ICMP error or TCP reset for this port's workload wasn't made: its packets had caused too many.
    AnswerRate = 59, "answer_rate";
    /// A rule on the ingress of the port where the packet came from drops it, or rejects it.
    PolicyIngress = 60, "policy_ingress";
    /// A rule on the egress of the port that the packet was for drops it, or rejects it.
    PolicyEgress = 61, "policy_egress";
}

/// Counters kept per port: one for each number below this.
pub const DROP_REASONS_MAX: u32 = 64;

const _: () = assert!(DropReason::ALL.len() < DROP_REASONS_MAX as usize);

/// Counters of one CPU in the drop counter array, which has a stripe for each CPU.
pub const COUNTERS_PER_CPU: u32 = crate::limits::PORTS_MAX * DROP_REASONS_MAX;

/// Index of a port's counter for a reason in the drop counter array.
pub const fn counter_index(cpu: u32, port: u32, reason: u8) -> u32 {
    cpu * COUNTERS_PER_CPU + port * DROP_REASONS_MAX + reason as u32
}
