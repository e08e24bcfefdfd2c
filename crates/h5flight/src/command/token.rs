//! `h5flight token`: who may see and do what. Works on the catalogue itself: the first token cannot come from a server
//! that asks for one.

use chrono::{DateTime, TimeDelta, Utc};
use h5flight_catalog::model::{NewToken, OpenOptions, Role, TokenSummary};
use h5flight_server::config::Config;
use serde_json::json;

use crate::cli::Globals;
use crate::connection::until_interrupted;
use crate::failure::Failure;
use crate::output::{Form, JsonArray, json as print_json, line, note};
use crate::quantity::{BareNumber, parse_millis};
use crate::settings::{CatalogFlags, process_environment};
use crate::table::{Align, Table};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token; its secret is printed once, alone on standard output
    Create(Create),
    /// List all tokens, without their secrets
    List(Catalog),
    /// Make a token worthless
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Person or program that will use it; shown in the access log
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// What it may do; each role includes the ones before
    #[arg(long, value_parser = ["read", "ingest", "admin"])]
    role: String,
    /// End of validity from now on, such as 12h or 30d; without it the token is valid until revoked
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
    #[command(flatten)]
    catalog: Catalog,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// Public part of the token, as `token list` shows it; the whole token is understood too
    prefix: String,
    #[command(flatten)]
    catalog: Catalog,
}

/// Where the catalogue is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Catalogue")]
pub struct Catalog {
    #[command(flatten)]
    flags: CatalogFlags,
}

/// Whether a catalogue that is not there yet is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is: something is about to be written.
    Create,
    /// It is not: an empty answer would hide a wrong path.
    Refuse,
}

impl Catalog {
    /// Opens the catalogue that a server with the same settings uses.
    pub async fn open(&self, missing: Missing) -> Result<std::sync::Arc<dyn h5flight_catalog::Catalog>, Failure> {
        open_catalog(&self.flags.load(&process_environment)?.config, missing).await
    }
}

/// Opens the catalogue that these settings name.
pub async fn open_catalog(
    config: &Config,
    missing: Missing,
) -> Result<std::sync::Arc<dyn h5flight_catalog::Catalog>, Failure> {
    let url = config.catalog_url();
    if let Some(path) = url.strip_prefix("sqlite://").map(|path| path.split('?').next().unwrap_or(path)) {
        let path = std::path::Path::new(path);
        match missing {
            Missing::Create => {
                let folder = path.parent().unwrap_or(path);
                std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
            }
            Missing::Refuse if !path.exists() => {
                let message = format!("no catalogue at {}; name it with --data-dir or --database-url", path.display());
                return Err(Failure::local("not_found", message));
            }
            Missing::Refuse => {}
        }
    }
    Ok(h5flight_catalog::open(&url, &OpenOptions::default()).await?)
}

/// Makes, lists or revokes.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    match &args.command {
        Command::Create(create) => create.run(globals.form),
        Command::List(catalog) => until_interrupted(list(catalog, globals.form)),
        Command::Revoke(revoke) => until_interrupted(revoke.run()),
    }
}

impl Create {
    fn run(&self, form: Form) -> Result<(), Failure> {
        let role = Role::from_text(&self.role).ok_or_else(|| Failure::usage(format!("no role {:?}", self.role)))?;
        if self.principal.trim().is_empty() || self.principal == "anonymous" {
            return Err(Failure::usage(format!("{:?} is no name for a principal", self.principal)));
        }
        let expires_at = self.expires.as_deref().map(|text| expiry(text, Utc::now())).transpose()?;
        until_interrupted(async {
            let catalog = self.catalog.open(Missing::Create).await?;
            let new = NewToken { principal: self.principal.clone(), role, expires_at };
            let made = catalog.create_token(&new).await?;
            let until = expires_at.map_or("until it is revoked".to_owned(), |end| format!("until {}", show_time(end)));
            match form {
                Form::Json => print_json(&json!({
                    "token": made.token, "prefix": made.prefix, "principal": self.principal,
                    "role": role.as_str(), "expires_at": expires_at,
                })),
                Form::People => {
                    let (prefix, principal, role) = (&made.prefix, &self.principal, role.as_str());
                    note(&format!(
                        "token {prefix} for {principal}, role {role}, valid {until}; it is shown only this once"
                    ));
                    line(&made.token)
                }
            }
        })
    }
}

fn expiry(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Failure> {
    let wrong = |problem: String| Failure::usage(format!("--expires: {problem}"));
    let millis = parse_millis(text, BareNumber::Refused).map_err(wrong)?;
    let span = i64::try_from(millis).ok().and_then(TimeDelta::try_milliseconds);
    match span.and_then(|span| now.checked_add_signed(span)) {
        Some(end) if millis > 0 => Ok(end),
        Some(_) => Err(wrong(format!("{text:?} is over at once"))),
        None => Err(wrong(format!("{text:?} is too long"))),
    }
}

async fn list(catalog: &Catalog, form: Form) -> Result<(), Failure> {
    let tokens = catalog.open(Missing::Refuse).await?.list_tokens().await?;
    if form == Form::Json {
        let mut array = JsonArray::default();
        for token in &tokens {
            array.push(&json!({
                "prefix": token.prefix, "principal": token.principal, "role": token.role.as_str(),
                "created_at": token.created_at, "expires_at": token.expires_at, "revoked_at": token.revoked_at,
            }))?;
        }
        return array.finish();
    }
    if tokens.is_empty() {
        note("no tokens; make one with `h5flight token create`");
    }
    let columns = ["PREFIX", "PRINCIPAL", "ROLE", "CREATED", "STATE"].map(|name| (name, Align::Left));
    let rows: Vec<Vec<String>> = tokens.iter().map(|token| token_row(token, Utc::now())).collect();
    Table::new(columns).print(&rows)
}

fn token_row(token: &TokenSummary, now: DateTime<Utc>) -> Vec<String> {
    let state = match (token.revoked_at, token.expires_at) {
        (Some(at), _) => format!("revoked {}", show_time(at)),
        (None, Some(at)) if at <= now => format!("expired {}", show_time(at)),
        (None, Some(at)) => format!("valid until {}", show_time(at)),
        (None, None) => "valid".to_owned(),
    };
    let role = token.role.as_str().to_owned();
    vec![token.prefix.clone(), token.principal.clone(), role, show_time(token.created_at), state]
}

/// A time as people of all places read it.
pub fn show_time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

impl Revoke {
    async fn run(&self) -> Result<(), Failure> {
        let prefix = public_part(&self.prefix);
        if self.catalog.open(Missing::Refuse).await?.revoke_token(prefix).await? {
            note(&format!("token {prefix} is revoked; running servers refuse it within seconds"));
            return Ok(());
        }
        Err(Failure::local("not_found", format!("no token with prefix {prefix:?}; `h5flight token list` shows them")))
    }
}

/// The prefix in `h5f_PREFIX_SECRET`; any other text is taken for the prefix itself.
fn public_part(text: &str) -> &str {
    let whole = text.strip_prefix("h5f_").and_then(|rest| rest.split('_').next());
    whole.filter(|prefix| !prefix.is_empty()).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_needs_a_unit_and_a_future() {
        let now = DateTime::from_timestamp(0, 0).unwrap();
        assert_eq!(expiry("30d", now).unwrap().timestamp(), 30 * 86_400);
        for text in ["30", "0s", "-1d", "99999999999d", "4000000000w"] {
            let message = expiry(text, now).unwrap_err().text(Form::People).unwrap();
            assert!(message.starts_with("error: --expires: "), "{message}");
        }
    }

    #[test]
    fn a_token_row_says_whether_the_token_is_worth_something() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0);
        let token = |expires_at, revoked_at| TokenSummary {
            prefix: "p".into(),
            principal: "ann".into(),
            role: Role::Read,
            created_at: at(0).unwrap(),
            expires_at,
            revoked_at,
        };
        let state = |token| token_row(&token, at(100).unwrap()).pop().unwrap();
        assert_eq!(state(token(None, None)), "valid");
        assert_eq!(state(token(at(101), None)), "valid until 1970-01-01 00:01:41 UTC");
        assert_eq!(state(token(at(100), None)), "expired 1970-01-01 00:01:40 UTC");
        assert_eq!(state(token(at(101), at(5))), "revoked 1970-01-01 00:00:05 UTC");
    }

    #[test]
    fn a_whole_token_is_revoked_by_its_prefix() {
        assert_eq!(public_part("h5f_abcd1234_secret_with_underscores"), "abcd1234");
        assert_eq!(public_part("abcd1234"), "abcd1234");
    }
}
