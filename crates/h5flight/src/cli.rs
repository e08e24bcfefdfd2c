//! The commands by name, and what is common to all of them.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command::{
    access_log, backup, chunks, diff, gc, get, healthcheck, info, ingest, ls, register, rollback, search, serve, table,
    tag, token, verify, versions, watch, worker,
};
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::output::Form;

/// Slices of HDF5 and NWB files over Arrow Flight and gRPC
#[derive(Debug, Parser)]
#[command(name = "h5flight", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 refused by the server or failed, 2 wrong usage.")]
pub struct Cli {
    /// Write JSON instead of tables, and errors as {"error": {"reason", "message", "code"}}
    #[arg(long, global = true, display_order = 1_000)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Args),
    /// Index files in place, below a root of the server
    Register(register::Args),
    /// Register files as they appear and change, until Ctrl-C
    Watch(watch::Args),
    /// Upload files
    Ingest(ingest::Args),
    /// Compare the catalogue with the files
    Verify(verify::Args),
    /// List animals, experiments, datasets; describe a dataset or group
    Ls(ls::Args),
    /// Read a slice: show its first rows or write it to a file
    Get(get::Args),
    /// Read a table, filtered: show its first rows or write it to a file
    Table(table::Args),
    /// Find datasets by words in names and attributes, and by conditions
    Search(search::Args),
    /// List the chunk pointers of a dataset
    Chunks(chunks::Args),
    /// List the versions of a dataset, the newest first
    Versions(versions::Args),
    /// Show what is different between two versions of a dataset
    Diff(diff::Args),
    /// Give versions a name, or remove it
    Tag(tag::Args),
    /// Make an older version of a dataset the newest again, as a new version
    Rollback(rollback::Args),
    /// Remove uploaded files that nothing names, and uploads that nobody went on with; needs the role admin
    Gc(gc::Args),
    /// Show what the server is and how it is doing
    Info(info::Args),
    /// Make, list and revoke tokens, in the catalogue itself
    Token(token::Args),
    /// Show who read what, newest first, from the catalogue itself
    AccessLog(access_log::Args),
    /// Make, list, check and restore backups: the catalogue and the uploaded files
    Backup(backup::Args),
    /// Ask /readyz; exit code 0 when the server is ready
    Healthcheck(healthcheck::Args),
    /// Look into one file for the server; started by it, never by people
    #[command(hide = true)]
    Worker,
}

/// What each command is told besides its own arguments.
#[derive(Debug)]
pub struct Globals {
    /// Who reads the output.
    pub form: Form,
    /// Connection flags that stood before the command's name.
    pub connection: ConnectionFlags,
}

/// Runs the command line and gives the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = Cli::command().try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error, &arguments),
    };
    let form = if cli.json { Form::Json } else { Form::People };
    let globals = Globals { form, connection: cli.connection };
    match dispatch(cli.command, &globals) {
        Ok(code) => code,
        Err(failure) => failure.report(form),
    }
}

fn dispatch(command: Command, globals: &Globals) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Worker => return Ok(worker::run()),
        Command::Serve(args) => globals.refuse_connection("serve").and_then(|()| serve::run(&args)),
        Command::Token(args) => globals.refuse_connection("token").and_then(|()| token::run(&args, globals)),
        Command::AccessLog(args) => {
            globals.refuse_connection("access-log").and_then(|()| access_log::run(&args, globals))
        }
        Command::Backup(args) => globals.refuse_connection("backup").and_then(|()| backup::run(&args, globals)),
        Command::Healthcheck(args) => {
            globals.refuse_connection("healthcheck").and_then(|()| healthcheck::run(&args, globals))
        }
        Command::Register(args) => register::run(&args, globals),
        Command::Watch(args) => watch::run(&args, globals),
        Command::Ingest(args) => ingest::run(&args, globals),
        Command::Verify(args) => verify::run(&args, globals),
        Command::Ls(args) => ls::run(&args, globals),
        Command::Get(args) => get::run(&args, globals),
        Command::Table(args) => table::run(&args, globals),
        Command::Search(args) => search::run(&args, globals),
        Command::Chunks(args) => chunks::run(&args, globals),
        Command::Versions(args) => versions::run(&args, globals),
        Command::Diff(args) => diff::run(&args, globals),
        Command::Tag(args) => tag::run(&args, globals),
        Command::Rollback(args) => rollback::run(&args, globals),
        Command::Gc(args) => gc::run(&args, globals),
        Command::Info(args) => info::run(&args, globals),
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl Globals {
    /// A connection named for a command that makes none would be a silent misunderstanding.
    fn refuse_connection(&self, command: &str) -> Result<(), Failure> {
        match self.connection.is_empty() {
            true => Ok(()),
            false => Err(Failure::usage(format!("--url and tokens mean nothing to `h5flight {command}`"))),
        }
    }
}

/// Help and version go to standard output; a wrong command line is told as clap tells it, or as JSON where asked.
fn report_usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_answer || !arguments.iter().any(|argument| argument == "--json") {
        // Nobody is left to tell when even this cannot be written.
        let _ = error.print();
        return ExitCode::from(if is_answer { 0 } else { 2 });
    }
    let rendered = error.render().to_string();
    let sentence = rendered.lines().next().unwrap_or_default();
    Failure::usage(sentence.strip_prefix("error: ").unwrap_or(sentence)).report(Form::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(arguments: &[&str]) -> get::Args {
        let arguments = ["h5flight", "get", "m1", "day1", "imaging"].iter().chain(arguments);
        match Cli::try_parse_from(arguments).unwrap().command {
            Command::Get(args) => args,
            other => panic!("parsed as {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_selection_may_begin_with_a_minus_and_options_may_follow_it() {
        assert_eq!(get(&["-5:, ::2"]).selection.as_deref(), Some("-5:, ::2"));
        let args = get(&["-1", "-o", "x.npy", "--version", "3"]);
        assert_eq!((args.selection.as_deref(), args.version), (Some("-1"), 3));
        assert_eq!(args.output.unwrap().to_str(), Some("x.npy"));
        assert_eq!(get(&["-o", "x.csv"]).selection, None);
        assert_eq!(get(&["--url", "grpc://h:1"]).connection.url.as_deref(), Some("grpc://h:1"));
    }

    #[test]
    fn connection_flags_stand_before_or_behind_the_command() {
        let cli = Cli::try_parse_from(["h5flight", "--url", "grpc://a:1", "ls", "--token", "t", "--json"]).unwrap();
        assert_eq!(cli.connection.url.as_deref(), Some("grpc://a:1"));
        assert!(cli.json);
        assert!(matches!(cli.command, Command::Ls(args) if args.connection.token.as_deref() == Some("t")));
    }
}
