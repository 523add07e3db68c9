//! What can be typed: the commands and their options (INTERFACE.md, "Commands").

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use weft_api::kinds::{KINDS, collection, kind_of};
use weft_api::{CONNECTIONS_LIMIT, Endpoint};
use weft_vnet::Kind;
use weft_vnet::policy::Connection;

/// Weft's command line.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about = "Virtual networks over any IP network", long_about = None)]
#[command(
    after_help = "Exit status: 0 done; 1 refused or failed; 2 usage; 3 `diff` found \
                        differences, `status` is degraded, or `doctor` found something."
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// weftd to speak to: unix:/PATH or http://HOST:PORT
    #[arg(
        long,
        global = true,
        env = "WEFT_ENDPOINT",
        default_value = "unix:/run/weft/weftd.sock",
        value_name = "URL"
    )]
    pub endpoint: Endpoint,
    /// File with the bearer token that weftd wants
    #[arg(long, global = true, env = "WEFT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Only this tenant; needed where several have an object of the same name
    #[arg(long, global = true, value_name = "NAME")]
    pub tenant: Option<String>,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// The API's types
    Json,
    /// The same as YAML
    Yaml,
    /// For `graph`
    Svg,
    /// For `graph`
    Dot,
    /// For `graph`
    Mermaid,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the topology what a file says, in one transaction
    Apply {
        #[command(flatten)]
        file: File,
        /// Say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Delete what the file doesn't mention, in the tenants that it names
        #[arg(long)]
        prune: bool,
    },
    /// Say what `apply` would change (exit status 3 if anything)
    Diff {
        #[command(flatten)]
        file: File,
        /// With what the file doesn't mention, in the tenants that it names
        #[arg(long)]
        prune: bool,
    },
    /// Write the topology as a file that `apply` takes without a change (with -o json as JSON)
    Export {
        /// Only this kind
        #[arg(value_parser = kind)]
        kind: Option<Kind>,
    },
    /// Show objects of the topology
    Get {
        /// Kind of object
        #[arg(value_parser = kind)]
        kind: Kind,
        /// Name of one of them; a port's is DEVICE/PORT
        name: Option<String>,
    },
    /// Show all that is known of an object: a port's state, counters, drops, and how its chains are enforced
    Describe {
        /// Kind of object
        #[arg(value_parser = kind)]
        kind: Kind,
        /// Its name; a port's is DEVICE/PORT
        name: String,
    },
    /// Delete an object; a bridge or router takes its ports along
    Delete {
        /// Kind of object
        #[arg(value_parser = kind)]
        kind: Kind,
        /// Its name; a port's is DEVICE/PORT
        name: String,
    },
    /// Bind ports to interfaces of hosts
    #[command(subcommand)]
    Port(PortCommand),
    /// Change members of address and port groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show ports, and what they are doing
    Ports,
    /// Show installed flows
    Flows {
        /// The masks in use instead
        #[arg(long)]
        masks: bool,
    },
    /// Show dropped packets by port and reason
    Drops {
        /// Keep on printing what is dropped
        #[arg(long)]
        follow: bool,
    },
    /// Show the rules of a port's chains with the packets and bytes that they decided
    Rules {
        /// BRIDGE/PORT; it must be on the host that is asked
        port: String,
    },
    /// Show connections that ports with chains have, those with the latest packets first
    #[command(args_conflicts_with_subcommands = true)]
    Connections {
        #[command(subcommand)]
        command: Option<ConnectionsCommand>,
        /// Only those of this port
        #[arg(long, value_name = "BRIDGE/PORT")]
        port: Option<String>,
        /// Keep on printing those that come (+), change their state (~) and go (-)
        #[arg(long, conflicts_with = "limit")]
        follow: bool,
        /// Show at most so many
        #[arg(long, value_name = "N", default_value_t = CONNECTIONS_LIMIT)]
        limit: usize,
    },
    /// Say what would happen to a packet
    Trace(Trace),
    /// Send a real packet from a port's host to another port, and compare its way with `trace` (exit status 1 if
    /// it isn't answered, or goes another way)
    Ping {
        /// Port whose workload seems to send it, BRIDGE/PORT; it must be on the host that is asked
        from: String,
        /// Port of the workload that it is for
        to: String,
        /// tcp/PORT: a SYN instead of an ICMP echo request
        what: Option<String>,
    },
    /// Show what ports, flows and drops are doing, live (without a terminal: once)
    Top,
    /// Draw the topology with its hosts: -o mermaid (the default), dot, svg or json
    Graph,
    /// Show the other hosts: whether they answer, round trips, loss, MTU
    Hosts,
    /// Find what is wrong, and the command that mends it (exit status 3 if anything); also without weftd
    Doctor,
    /// Show how weftd is (exit status 3 if degraded)
    Status,
    /// Work on the host itself
    #[command(subcommand)]
    Host(HostCommand),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Folder to write weft.1, weft-apply.1, ... into
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

/// A topology file.
#[derive(Debug, Args)]
pub struct File {
    /// Topology file; `-` is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    pub file: PathBuf,
}

/// Commands on a port's binding.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Bind a port to an interface, which need not exist yet
    Bind {
        /// BRIDGE/PORT
        port: String,
        /// Host that the interface is on
        #[arg(long)]
        host: String,
        /// Name of the interface
        #[arg(long)]
        interface: String,
        /// GRE key of the port there, if no weftd runs on that host: 1 to 8388607
        #[arg(long)]
        tunnel_key: Option<u32>,
    },
    /// Take a port off its interface
    Unbind {
        /// BRIDGE/PORT
        port: String,
    },
}

/// Commands on connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// Forget connections: their next packets are judged as if they were new
    Flush {
        /// Only those of this port
        #[arg(long, value_name = "BRIDGE/PORT")]
        port: Option<String>,
    },
}

/// Commands on a group: each changes any number of members in one transaction.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Add members; one that is there already stays
    Add(Members),
    /// Remove members; one that isn't there stays away
    Remove(Members),
}

/// Members of a group.
#[derive(Debug, Args)]
pub struct Members {
    /// Name of the group
    pub group: String,
    /// Addresses or prefixes for an address group, BRIDGE/PORT for a port group
    #[arg(required = true, value_name = "MEMBER")]
    pub members: Vec<String>,
}

/// Commands on a host.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Take every program, pin, tap and rule of Weft out of the host's kernel, and end its weftd. Without a running
    /// weftd this works on what it left, on the host itself
    Release {
        /// Name of the host: refused if it is another one's weftd that answers
        host: Option<String>,
        /// weftd's configuration, read when no weftd answers
        #[arg(long, value_name = "FILE", default_value = "/etc/weft/weftd.toml")]
        config: PathBuf,
    },
}

/// Arguments of `trace`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["packet", "hex", "pcap"]))]
#[command(after_help = "PACKET is one of:
  icmp 10.0.1.11 > 10.0.2.11 echo
  tcp 10.0.1.11:40000 > 10.0.2.11:80 [syn]
  udp 10.0.1.11:40000 > 10.0.2.11:53
  arp 10.0.1.11 who-has 10.0.1.1
  icmp fd00:1::b > fd00:2::b echo
  tcp [fd00:1::b]:40000 > [fd00:2::b]:80
  nd fd00:1::b who-has fd00:1::1
In a shell, quote it: `>` redirects. MACs are those that a real workload on the port would use.
A capture is read in the classic pcap format, of Ethernet frames (not pcapng).")]
pub struct Trace {
    /// Port whose workload sends the packet, BRIDGE/PORT
    #[arg(long, value_name = "BRIDGE/PORT")]
    pub from: String,
    /// The packet in words
    #[arg(value_name = "PACKET")]
    pub packet: Vec<String>,
    /// The whole frame in hexadecimal; spaces and colons don't matter
    #[arg(long, value_name = "HEX")]
    pub hex: Option<String>,
    /// A capture to take the frame from
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Which frame of the capture, from 1
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["hex", "packet"])]
    pub frame: u64,
    /// State of its connection, for the chains of the ports: new, established, related or invalid
    #[arg(long, value_name = "STATE", default_value = "new", value_parser = connection)]
    pub state: Connection,
}

fn connection(word: &str) -> Result<Connection, String> {
    let states = [
        Connection::New,
        Connection::Established,
        Connection::Related,
        Connection::Invalid,
    ];
    let found = states.into_iter().find(|it| it.to_string() == word);
    found.ok_or_else(|| "expected new, established, related or invalid".to_owned())
}

fn kind(word: &str) -> Result<Kind, String> {
    kind_of(word).ok_or_else(|| {
        let known: Vec<&str> = KINDS.into_iter().map(collection).collect();
        format!("expected one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_typed_is_understood() {
        let cli = Cli::parse_from([
            "weft",
            "trace",
            "--from",
            "web/web-1",
            "icmp",
            "a",
            ">",
            "b",
            "-o",
            "json",
        ]);
        assert_eq!(cli.global.output, Format::Json);
        let Command::Trace(trace) = cli.command else {
            panic!("trace")
        };
        assert_eq!(trace.packet, ["icmp", "a", ">", "b"]);
        for wrong in [
            &["weft", "trace", "--from", "web/web-1"][..],
            &[
                "weft",
                "trace",
                "--from",
                "web/web-1",
                "--hex",
                "00",
                "icmp",
            ],
            &[
                "weft",
                "trace",
                "--from",
                "web/web-1",
                "--hex",
                "00",
                "--frame",
                "2",
            ],
            &["weft", "get", "mirrors"],
            &["weft", "group", "add", "office"],
            &[
                "weft", "trace", "--from", "a/b", "--hex", "00", "--state", "old",
            ],
            &["weft", "apply"],
            &["weft", "--endpoint", "ftp://x", "status"],
        ] {
            let error = Cli::try_parse_from(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }
}
