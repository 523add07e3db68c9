//! `weft`: what a person types. Speaks to one weftd by its API and prints what it answers.
//!
//! Exit status: 0 done; 1 refused or failed (the reason on standard error); 2 usage; 3 `diff`
//! found differences or `status` is degraded.

mod args;
mod commands;
mod output;
mod pcap;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use miette::GraphicalReportHandler;
use weft_api::client::{Client, ClientError, read_token};
use weft_api::problem::kind;
use weft_api::topology::Mistakes;

use crate::args::{Cli, Command, Format, Global, HostCommand};
use crate::commands::{
    Session, apply, change, describe, doctor, graph, group, host, hosts, objects, observe, ping,
    policy, top, trace,
};
use crate::output::Output;

/// How a command that did its work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Exit status 0.
    Well,
    /// Exit status 1, and what was printed says why.
    Failed,
    /// Exit status 3: there are differences, or something is degraded.
    Differs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Failed) => ExitCode::from(1),
        Ok(Done::Differs) => ExitCode::from(3),
        Err(error) => {
            report(&error);
            ExitCode::from(1)
        }
    }
}

fn run(cli: Cli) -> Result<Done> {
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "weft", &mut script);
            return print(&script);
        }
        Command::Man {
            folder: Some(folder),
        } => {
            clap_mangen::generate_to(Cli::command(), folder)
                .with_context(|| format!("writing into {}", folder.display()))?;
            return Ok(Done::Well);
        }
        Command::Man { folder: None } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .context("making the manual page")?;
            return print(&page);
        }
        _ => {}
    }
    check_format(&cli);
    let session = session(&cli.global)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(dispatch(&session, cli))
}

/// Prints what was made whole before: who reads it may stop when they have enough.
fn print(bytes: &[u8]) -> Result<Done> {
    let text = String::from_utf8_lossy(bytes);
    Output::new(Format::Table).text(&text)?;
    Ok(Done::Well)
}

/// Ends with a usage error where a drawing is asked of a command that draws nothing.
fn check_format(cli: &Cli) {
    let draws = matches!(cli.command, Command::Graph);
    let is_drawing = matches!(
        cli.global.output,
        Format::Svg | Format::Dot | Format::Mermaid
    );
    if is_drawing && !draws {
        let text = "`-o svg`, `-o dot` and `-o mermaid` are for `weft graph`";
        Cli::command()
            .error(ErrorKind::ArgumentConflict, text)
            .exit();
    }
}

fn session(global: &Global) -> Result<Session> {
    let token = global.token_file.as_ref().map(|path| {
        read_token(path).with_context(|| format!("reading the token from {}", path.display()))
    });
    let token = token.transpose()?;
    Ok(Session {
        client: Client::new(global.endpoint.clone(), token.as_deref()),
        tenant: global.tenant.clone(),
        output: Output::new(global.output),
    })
}

async fn dispatch(session: &Session, cli: Cli) -> Result<Done> {
    match cli.command {
        Command::Apply {
            file,
            dry_run,
            prune,
        } => apply::apply(session, &file.file, prune, dry_run).await,
        Command::Diff { file, prune } => apply::diff(session, &file.file, prune).await,
        Command::Export { kind } => apply::export(session, kind).await,
        Command::Get { kind, name } => objects::get(session, kind, name.as_deref()).await,
        Command::Describe { kind, name } => describe::describe(session, kind, &name).await,
        Command::Delete { kind, name } => change::delete(session, kind, &name).await,
        Command::Port(command) => change::port(session, &command).await,
        Command::Group(command) => group::group(session, &command).await,
        Command::Ports => observe::ports(session).await,
        Command::Flows { masks: false } => observe::flows(session).await,
        Command::Flows { masks: true } => observe::masks(session).await,
        Command::Drops { follow: false } => observe::drops(session).await,
        Command::Drops { follow: true } => observe::follow_drops(session).await,
        Command::Rules { port } => policy::rules(session, &port).await,
        Command::Connections {
            command: Some(command),
            ..
        } => policy::change(session, &command).await,
        Command::Connections {
            port, follow: true, ..
        } => policy::follow(session, port.as_deref()).await,
        Command::Connections { port, limit, .. } => {
            policy::connections(session, port.as_deref(), limit).await
        }
        Command::Trace(args) => trace::trace(session, &args).await,
        Command::Doctor => doctor::doctor(session, &cli.global.endpoint).await,
        Command::Ping { from, to, what } => ping::ping(session, &from, &to, what.as_deref()).await,
        Command::Top => top::top(session).await,
        Command::Graph => graph::graph(session).await,
        Command::Hosts => hosts::hosts(session).await,
        Command::Status => observe::status(session).await,
        Command::Host(HostCommand::Release { host, config }) => {
            host::release(session, host.as_deref(), &config).await
        }
        // Done before anything is connected.
        Command::Completions { .. } | Command::Man { .. } => Ok(Done::Well),
    }
}

/// Says on standard error why a command failed; a file's mistakes with the lines they are in.
fn report(error: &anyhow::Error) {
    let Some(mistakes) = error.downcast_ref::<Mistakes>() else {
        eprintln!("error: {error:#}");
        let problem = error
            .downcast_ref::<ClientError>()
            .and_then(ClientError::problem);
        if problem.is_some_and(|problem| problem.kind == kind::UNAUTHORIZED) {
            eprintln!("  check: --token-file or WEFT_TOKEN_FILE names the file with weftd's token");
        }
        return;
    };
    if io::stderr().is_terminal() {
        let handler = GraphicalReportHandler::new();
        for mistake in &mistakes.list {
            let mut text = String::new();
            match handler.render_report(&mut text, mistake) {
                Ok(()) => eprintln!("{}", text.trim_end()),
                Err(_) => eprintln!("{mistake}"),
            }
        }
    } else {
        eprintln!("{mistakes}");
    }
    let count = mistakes.list.len();
    let noun = if count == 1 { "mistake" } else { "mistakes" };
    eprintln!("error: {count} {noun}, nothing was changed");
}
