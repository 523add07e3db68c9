//! Chains of ports: what they let pass, refuse and remember.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::packet::Transport;
use weft_tests::harness::{Network, Run, Topology, Underlay, wait};
use weft_tests::scenario;

/// How long a connection is waited for that must come about, and one that must not.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_millis(1500);

/// A server that echoes what one connection after the other sends. It ends when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(net: &Network, workload: &str, port: u16) -> Result<Server> {
        let workload = net.workload(workload)?;
        let address = SocketAddr::new(workload.address()?.into(), port);
        let listener = workload
            .namespace()?
            .enter(|| Ok(TcpListener::bind(("0.0.0.0", port))?))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut open = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let _ = stream.set_nonblocking(true);
                    open.push(stream);
                }
                for stream in &mut open {
                    let mut bytes = [0; 512];
                    if let Ok(length) = stream.read(&mut bytes) {
                        let _ = stream.write_all(&bytes[..length]);
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        Ok(Server {
            address,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection, or how it failed.
pub fn connect(
    net: &Network,
    from: &str,
    to: SocketAddr,
    limit: Duration,
) -> Result<std::io::Result<TcpStream>> {
    let namespace = net.workload(from)?.namespace()?;
    namespace.enter(|| {
        let stream = TcpStream::connect_timeout(&to, limit);
        if let Ok(stream) = &stream {
            stream.set_read_timeout(Some(CONNECT_LIMIT))?;
        }
        Ok(stream)
    })
}

/// A word goes there and comes back.
pub fn talk(stream: &mut TcpStream, word: &str) -> Result<()> {
    stream.write_all(word.as_bytes())?;
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).context("no answer")?;
    ensure!(answer == word.as_bytes());
    Ok(())
}

pub fn connects(net: &Network, from: &str, to: SocketAddr) -> Result<TcpStream> {
    let stream = connect(net, from, to, CONNECT_LIMIT)?;
    let mut stream = stream.with_context(|| format!("{from} to {to}"))?;
    talk(&mut stream, "hello")?;
    Ok(stream)
}

/// Nothing comes back.
pub fn is_silent(net: &Network, from: &str, to: SocketAddr) -> Result<()> {
    let failed = connect(net, from, to, SILENCE)?;
    let kind = failed.err().map(|error| error.kind());
    ensure!(
        kind == Some(ErrorKind::TimedOut),
        "{from} to {to}: {kind:?}"
    );
    Ok(())
}

/// What the chains let pass is expected at a workload.
pub fn expect_tcp(net: &Network, at: &str, port: u16) -> Result<()> {
    net.workload(at)?
        .judge()
        .expect(format!("TCP with port {port}"), u64::MAX, move |frame| {
            let tcp = frame.ipv4().map(|(.., transport)| transport.clone());
            matches!(tcp, Some(Transport::Tcp { source, destination })
                if source == port || destination == port)
        });
    Ok(())
}

/// A web server on h1; clients on either host.
pub fn web(chains: &str) -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .and_chains(&[], &["to-web"])
        .port("web/near-1", "h1", "10.0.1.21/24")
        .port("web/far-1", "h2", "10.0.1.22/24")
        .policy(chains)
}

pub const DEFAULT_DENY: &str = "chains:
  to-web:
    - { state: [established, related], action: accept }
    - { proto: tcp, dst_port: 8080, action: accept }
    - { action: drop }
";

#[scenario]
fn a_web_server_is_reached_by_its_port_alone(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web(DEFAULT_DENY))?;
    let server = Server::start(net, "web-1", 8080)?;
    let _other = Server::start(net, "web-1", 9090)?;
    for client in ["near-1", "far-1"] {
        expect_tcp(net, client, 8080)?;
        expect_tcp(net, "web-1", 8080)?;
        let mut stream = connects(net, client, server.address)?;
        let closed = SocketAddr::new(server.address.ip(), 9090);
        is_silent(net, client, closed)?;
        talk(&mut stream, "still there")?;
    }
    let drops = net.weft("h1")?.all_drops()?;
    ensure!(
        drops.get("policy_egress").is_some_and(|it| *it >= 2),
        "{drops:?}"
    );
    Ok(())
}

#[scenario]
fn answers_come_in_to_who_asked(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web(DEFAULT_DENY))?;
    // Outwards all is allowed; of what comes in, the answers.
    for host in ["near-1", "far-1"] {
        let server = Server::start(net, host, 7070)?;
        expect_tcp(net, host, 7070)?;
        expect_tcp(net, "web-1", 7070)?;
        connects(net, "web-1", server.address)?;
        net.ping("web-1", host)?;
        let echo = net.workload(host)?.namespace()?;
        let echo = echo.enter(|| Ok(UdpSocket::bind(("0.0.0.0", 5353))?))?;
        let asker = net.workload("web-1")?.namespace()?;
        let asker = asker.enter(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
        for socket in [&echo, &asker] {
            socket.set_read_timeout(Some(CONNECT_LIMIT))?;
        }
        net.workload(host)?.judge().expect("a question", 1, is_udp);
        net.workload("web-1")?
            .judge()
            .expect("an answer", 1, is_udp);
        asker.send_to(b"who", (net.workload(host)?.address()?, 5353))?;
        let mut bytes = [0; 16];
        let (length, from) = echo.recv_from(&mut bytes).context("no question")?;
        echo.send_to(&bytes[..length], from)?;
        asker.recv(&mut bytes).context("no answer")?;
        // Unasked, the same is refused.
        let stranger = net.workload(host)?.namespace()?;
        let stranger = stranger.enter(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
        stranger.send_to(b"hi", from)?;
    }
    wait::until("refused datagrams", CONNECT_LIMIT, || {
        let drops = net.weft("h1")?.all_drops()?;
        Ok(drops.get("policy_egress").copied().filter(|it| *it >= 2))
    })?;
    let to = net.workload("web-1")?.address()?;
    let namespace = net.workload("far-1")?.namespace()?;
    let refused = namespace.run(
        "ping",
        &["-n", "-c", "2", "-i", "0.2", "-W", "1", &to.to_string()],
        CONNECT_LIMIT,
    )?;
    ensure!(
        refused.stdout.contains(" 0 received"),
        "{}",
        refused.describe()
    );
    Ok(())
}

fn is_udp(frame: &weft_tests::harness::packet::Frame) -> bool {
    matches!(frame.ip(), Some((.., Transport::Udp { .. })))
}

/// Clients that may talk to the database are a group of ports; so are those that may be asked by the office.
const BY_GROUPS: &str = "chains:
  to-db:
    - { state: [established, related], action: accept }
    - { src: { port_group: web }, proto: tcp, dst_port: 5432, action: accept }
    - { src: { group: office }, proto: tcp, dst_port: 5432, action: accept }
    - { proto: tcp, action: reject }
    - { action: drop }
  to-web:
    - { state: established, action: accept }
    - { src: { port_group: web }, action: accept }
    - { action: reject }
address_groups: { office: [203.0.113.0/24] }
port_groups: { web: { ports: [web/web-1, web/web-2] } }
";

/// Two web servers in a group, which may ask the database and each other; a stranger on each host.
fn groups() -> Topology {
    Topology::tenant("acme")
        .port("web/db-1", "h1", "10.0.1.11/24")
        .and_chains(&[], &["to-db"])
        .port("web/web-1", "h1", "10.0.1.21/24")
        .and_chains(&[], &["to-web"])
        .port("web/web-2", "h2", "10.0.1.22/24")
        .and_chains(&[], &["to-web"])
        .port("web/near-1", "h1", "10.0.1.31/24")
        .port("web/far-1", "h2", "10.0.1.32/24")
        .policy(BY_GROUPS)
}

/// The connection is refused at once, by a reset.
fn is_refused(net: &Network, from: &str, to: SocketAddr) -> Result<()> {
    let failed = connect(net, from, to, CONNECT_LIMIT)?;
    let kind = failed.err().map(|error| error.kind());
    ensure!(
        kind == Some(ErrorKind::ConnectionRefused),
        "{from} to {to}: {kind:?}"
    );
    Ok(())
}

#[scenario]
fn groups_of_ports_and_addresses_may_connect(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&groups())?;
    let database = Server::start(net, "db-1", 5432)?;
    let web = Server::start(net, "web-2", 8080)?;
    for (workload, port) in [
        ("db-1", 5432),
        ("web-1", 5432),
        ("web-2", 5432),
        ("near-1", 5432),
        ("far-1", 5432),
        ("web-1", 8080),
        ("web-2", 8080),
        ("near-1", 8080),
        ("far-1", 8080),
    ] {
        expect_tcp(net, workload, port)?;
    }
    for member in ["web-1", "web-2"] {
        connects(net, member, database.address)?;
    }
    connects(net, "web-1", web.address)?;
    for stranger in ["near-1", "far-1"] {
        is_refused(net, stranger, database.address)?;
        is_refused(net, stranger, web.address)?;
    }
    // A member that comes is let in, and cut off when it goes; nothing is applied anew.
    let weft = net.weft("h1")?;
    let office = ["group", "add", "office", "10.0.1.32"];
    weft.text(&office)?;
    let mut stream = wait::until("the new member", CONNECT_LIMIT, || {
        Ok(connect(net, "far-1", database.address, CONNECT_LIMIT)?.ok())
    })?;
    stream.set_read_timeout(Some(SILENCE))?;
    talk(&mut stream, "a member")?;
    weft.text(&["group", "remove", "office", "10.0.1.32"])?;
    wait::until("the member to be cut off", CONNECT_LIMIT, || {
        Ok(talk(&mut stream, "no member").is_err().then_some(()))
    })?;
    is_refused(net, "near-1", database.address)
}

/// As a scanner sees them: open, closed by a reset, and filtered.
#[scenario]
fn a_scanner_sees_rejects_as_closed_and_drops_as_filtered(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web("chains:
  to-web:
    - { state: established, action: accept }
    - { proto: tcp, dst_port: 8080, action: accept }
    - { proto: [tcp, udp], dst_port: 9090, action: reject }
    - { action: drop }
"))?;
    let _server = Server::start(net, "web-1", 8080)?;
    for client in ["near-1", "far-1"] {
        for port in [8080, 9090, 7070] {
            expect_tcp(net, client, port)?;
            expect_tcp(net, "web-1", 8080)?;
        }
        let judge = net.workload(client)?.judge();
        judge.expect("ICMP prohibited", u64::MAX, |frame| {
            matches!(
                frame.ipv4(),
                Some((
                    ..,
                    Transport::Icmp {
                        kind: 3,
                        code: 13,
                        ..
                    }
                ))
            )
        });
        let namespace = net.workload(client)?.namespace()?;
        let scan = |kind: &str| {
            let ports = "7070,8080,9090";
            let args = [
                kind,
                "-Pn",
                "-n",
                "--reason",
                "--max-retries",
                "1",
                "-p",
                ports,
                "10.0.1.11",
            ];
            namespace
                .run("nmap", &args, Duration::from_secs(120))?
                .success()
        };
        let tcp = scan("-sS")?;
        for (port, seen) in [
            ("7070/tcp", "filtered"),
            ("8080/tcp", "open"),
            ("9090/tcp", "closed"),
        ] {
            let line = tcp.lines().find(|line| line.starts_with(port));
            let line = line.with_context(|| tcp.clone())?;
            ensure!(line.split_whitespace().nth(1) == Some(seen), "{tcp}");
        }
        let udp = scan("-sU")?;
        let line = udp.lines().find(|line| line.starts_with("9090/udp"));
        let line = line.with_context(|| udp.clone())?;
        // nmap's word for an ICMP error of another code than "port unreachable".
        ensure!(
            line.contains("filtered") && line.contains("admin-prohibited"),
            "{udp}"
        );
    }
    Ok(())
}

#[scenario]
fn a_change_of_policy_cuts_what_it_no_longer_allows(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web(DEFAULT_DENY))?;
    let server = Server::start(net, "web-1", 8080)?;
    for workload in ["web-1", "near-1", "far-1"] {
        expect_tcp(net, workload, 8080)?;
    }
    let mut streams = Vec::new();
    for client in ["near-1", "far-1"] {
        let stream = connects(net, client, server.address)?;
        stream.set_read_timeout(Some(SILENCE))?;
        streams.push(stream);
    }
    let other = DEFAULT_DENY.replace("8080", "8081");
    net.apply_yaml(&web(&other).yaml())?.success()?;
    for stream in &mut streams {
        wait::until("the connection to be cut off", CONNECT_LIMIT, || {
            Ok(talk(stream, "cut").is_err().then_some(()))
        })?;
    }
    is_silent(net, "far-1", server.address)?;
    // Allowed again, what was sent meanwhile arrives.
    net.apply_yaml(&web(DEFAULT_DENY).yaml())?.success()?;
    for stream in &mut streams {
        stream.set_read_timeout(Some(CONNECT_LIMIT))?;
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).context("it doesn't go on")?;
    }
    connects(net, "far-1", server.address).map(drop)
}

/// Connections of the bet: as many as two rounds have.
const FEW: u32 = 100;
const MANY: u32 = 10_000;

/// So many connections, one after the other, each closed by its client.
fn open_and_close(net: &Network, from: &str, to: SocketAddr, connections: u32) -> Result<()> {
    let namespace = net.workload(from)?.namespace()?;
    namespace.enter(|| {
        for number in 0..connections {
            let stream = TcpStream::connect_timeout(&to, CONNECT_LIMIT)
                .with_context(|| format!("connection {number}"))?;
            drop(stream);
        }
        Ok(())
    })
}

#[scenario]
fn a_connection_behind_chains_costs_neither_a_miss_nor_a_flow(run: &mut Run) -> Result<()> {
    let net = run.unwatched_hosts(Underlay::Routed, 2)?;
    let stateful = "chains:
  to-any:
    - { state: [established, related], action: accept }
    - { proto: tcp, dst_port: 8080, action: accept }
    - { action: drop }
  from-any:
    - { state: [established, related], action: accept }
    - { proto: tcp, action: accept }
    - { action: drop }
";
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .and_chains(&["from-any"], &["to-any"])
            .port("web/far-1", "h2", "10.0.1.22/24")
            .and_chains(&["from-any"], &["to-any"])
            .policy(stateful),
    )?;
    let listener = net.workload("web-1")?.namespace()?;
    let listener = listener.enter(|| Ok(TcpListener::bind("0.0.0.0:8080")?))?;
    listener.set_nonblocking(true)?;
    let address = SocketAddr::new(net.workload("web-1")?.address()?.into(), 8080);
    let stop = AtomicBool::new(false);
    let counts = |net: &Network| -> Result<Vec<(u64, u64)>> {
        let of = |host| {
            let status = net.weft(host)?.status()?;
            Ok((status.misses, status.flows))
        };
        ["h1", "h2"].into_iter().map(of).collect()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                while listener.accept().is_ok() {}
                thread::sleep(Duration::from_micros(100));
            }
        });
        let done = (|| {
            open_and_close(net, "far-1", address, 1)?;
            let before = counts(net)?;
            open_and_close(net, "far-1", address, FEW)?;
            let few = counts(net)?;
            open_and_close(net, "far-1", address, MANY)?;
            let many = counts(net)?;
            println!("misses and flows of each host: {before:?}, {few:?}, {many:?}");
            ensure!(before == few && few == many, "{before:?} {few:?} {many:?}");
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        done
    })
}
