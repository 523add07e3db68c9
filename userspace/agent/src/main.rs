//! `weftd`, the agent on each host: wiring and loops only.
//!
//! The packet thread ([`packet_thread`], [`engine`]) decides; the runtime's tasks follow the store
//! ([`store_sync`]), the host's network (`weft_datapath::network`) and serve the API ([`server`]).

mod config;
mod engine;
mod log;
mod memory;
mod metrics;
mod miss_queue;
mod packet_thread;
mod ping;
mod runs;
mod server;
mod store_sync;

use anyhow::Context;
use clap::Parser;
use config::{Config, DatapathChoice};
use engine::{Engine, EngineConfig, Message};
use memory::Memory;
use packet_thread::PacketThread;
use runs::Runs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store_sync::StoreSync;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use weft_datapath::kernel::why_not_xdp;
use weft_datapath::network::watch_network;
use weft_datapath::{Datapath, FlowTable, Kernel, KernelConfig, PortTable};
use weft_store::{Seen, Store};

/// The agent of Weft on this host.
#[derive(Parser)]
#[command(name = "weftd", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/weft/weftd.toml")]
    config: PathBuf,
    /// Say what would be attached, and what stands in the way; change nothing.
    #[arg(long)]
    check: bool,
    /// Take out of the kernel what a weftd that is gone left there, and end; with HOST only if that is this host.
    #[arg(long, value_name = "HOST", num_args = 0..=1, default_missing_value = "", conflicts_with = "check")]
    release: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    weft_datapath::kernel::check_version()?;
    let config = Config::read(&arguments.config)?;
    log::start(config.log.format, &config.host);
    if arguments.check {
        return check(&config);
    }
    // Two runtime threads: the packet path has its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let Some(host) = arguments.release {
        return runtime.block_on(release(&config, &host));
    }
    let runs = Arc::new(Mutex::new(Some(Runs::start(
        &config.state_folder(),
        &config.host,
    ))));
    let result = runtime.block_on(run(config, runs.clone()));
    if let Some(runs) = runs.lock().unwrap_or_else(PoisonError::into_inner).take() {
        runs.end(&result);
    }
    result
}

async fn run(config: Config, runs: server::SharedRuns) -> anyhow::Result<()> {
    let memory = Memory::new(&config.state_folder(), &config.host);
    // Another URL is another store, by an operator's will.
    let remembered = memory.load();
    let generations = remembered
        .as_ref()
        .map(|it| it.generations.clone())
        .unwrap_or_default();
    let remembered = remembered.filter(|it| it.url == config.store.url);
    let seen = remembered.as_ref().map(|it| Seen::of(&it.contents));
    let store = open_store(&config, seen)?;
    let (updates, updates_out) = mpsc::unbounded_channel();
    let (remotes, remotes_out) = watch::channel(Vec::new());
    let engine = open_engine(&config, &generations, updates, remotes)?;
    let (packets, thread) = PacketThread::start(engine)?;
    let released = Arc::new(Notify::new());
    server::serve(
        &config.api,
        store.clone(),
        packets.clone(),
        released.clone(),
        runs,
    )
    .await?;
    if let Some(address) = config.metrics.listen {
        server::serve_metrics(address, packets.clone()).await?;
    }
    let to_packets = packets.clone();
    let url = config.store.url.clone();
    let sync = StoreSync::new(
        store,
        url,
        config.host.clone(),
        move |message| {
            to_packets.send(message);
        },
        updates_out,
        memory,
        remembered,
    );
    let sync = tokio::spawn(sync.run());
    let network = tokio::spawn(watch_network(remotes_out, move |network| {
        packets.send(Message::Network(network))
    }));
    tracing::info!(host = config.host, "weftd runs");
    let ended = || {
        [
            (thread.is_finished(), "the packet thread ended"),
            (sync.is_finished(), "the store isn't followed any more"),
            (
                network.is_finished(),
                "the host's network can't be watched any more",
            ),
        ]
        .into_iter()
        .find_map(|(is_finished, what)| is_finished.then_some(what))
    };
    wait_for_end(&released, ended).await?;
    sync.abort();
    network.abort();
    Ok(())
}

/// Waits until weftd is to end: a signal, a release, or a part of it that `ended`.
async fn wait_for_end(
    released: &Notify,
    ended: impl Fn() -> Option<&'static str>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut watchdog = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = released.notified() => {
                // Whoever asked is to hear of it.
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Ok(());
            }
            _ = watchdog.tick() => {
                if let Some(what) = ended() {
                    anyhow::bail!("{what}; what is installed goes on forwarding");
                }
            }
        }
    }
    tracing::info!("weftd stops; what is installed goes on forwarding");
    Ok(())
}

/// `--release`: what a weftd that is gone left goes.
async fn release(config: &Config, host: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        host.is_empty() || host == config.host,
        "the configuration is that of host {}, not of {host}",
        config.host
    );
    let pin = config.pin();
    if !Kernel::release_pins(&pin)? {
        println!("{}: nothing is left in the kernel", config.host);
        return Ok(());
    }
    println!("{}: released, {} is gone", config.host, pin.display());
    let store = open_store(config, None)?;
    if let Err(warning) = server::withdraw(&*store, &config.host).await {
        println!("{warning}");
    }
    Ok(())
}

fn open_store(config: &Config, seen: Option<Seen>) -> anyhow::Result<Arc<dyn Store>> {
    let token = config
        .store
        .token_file
        .as_deref()
        .or(config.api.token_file.as_deref());
    let token = token.map(config::read_token).transpose()?;
    weft_store::open(&config.store.url, token.as_deref(), seen)
        .with_context(|| format!("opening the store {}", config.store.url))
}

/// Opens the datapath and takes over the keys that an earlier agent gave out.
fn open_engine(
    config: &Config,
    generations: &BTreeMap<u16, u8>,
    updates: mpsc::UnboundedSender<weft_api::StateUpdate>,
    remotes: watch::Sender<Vec<std::net::IpAddr>>,
) -> anyhow::Result<Engine<Kernel>> {
    let kernel = Kernel::open(&KernelConfig { pin: config.pin() })?;
    let table = FlowTable::new(kernel.slot_generation());
    let ports = PortTable::new(
        |index| {
            let record = kernel.read_port(index);
            let pinned = record.map_or(0, |record| record.generation);
            // After a reboot the kernel knows of none.
            match pinned {
                0 => generations.get(&index).copied().unwrap_or(0),
                pinned => pinned,
            }
        },
        0,
    );
    let engine_config = EngineConfig {
        host: config.host.clone(),
        underlay_interfaces: config.underlay.interfaces.clone(),
        xdp: config.underlay.datapath.into(),
        tunnel_options: config.underlay.tunnel_options(),
        flows_max: config.limits.flows,
        flow_idle_secs: config.limits.flow_idle_secs,
    };
    Ok(Engine::new(
        engine_config,
        kernel,
        table,
        ports,
        updates,
        remotes,
    ))
}

/// Whether `from_underlay_xdp` would be attached, and why not.
fn xdp_words(config: &Config, interface: &str) -> String {
    match config.underlay.datapath {
        DatapathChoice::Tc => String::new(),
        DatapathChoice::Xdp => " and from_underlay_xdp".to_owned(),
        DatapathChoice::Auto => match why_not_xdp(interface) {
            Ok(None) => " and from_underlay_xdp".to_owned(),
            Ok(Some(why)) => format!(", no XDP: {why}"),
            Err(error) => format!(", no XDP: {error}"),
        },
    }
}

/// `--check`: what would be attached, and why it couldn't.
fn check(config: &Config) -> anyhow::Result<()> {
    println!(
        "host {}, store {}, pins in {}",
        config.host,
        config.store.url,
        config.pin().display()
    );
    let mut problems = 0;
    for interface in &config.underlay.interfaces {
        match nix::net::if_::if_nametoindex(interface.as_str()) {
            Ok(_) => println!(
                "underlay interface {interface}: would attach from_underlay{}",
                xdp_words(config, interface)
            ),
            Err(_) => {
                println!("underlay interface {interface}: doesn't exist yet; would wait for it");
                problems += 1;
            }
        }
    }
    for path in [&config.api.token_file, &config.store.token_file]
        .into_iter()
        .flatten()
    {
        if let Err(error) = config::read_token(path) {
            println!("{error:#}");
            problems += 1;
        }
    }
    if !nix::unistd::geteuid().is_root() {
        println!("not root: loading programs needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
        problems += 1;
    }
    anyhow::ensure!(problems == 0, "{problems} problems");
    Ok(())
}
