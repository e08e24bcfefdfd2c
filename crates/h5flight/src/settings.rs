//! The settings of a server, from the command line, the environment and a TOML file.
//!
//! [`TABLE`](table::TABLE) names each setting once; flag (`--memory-bytes`), variable (`H5FLIGHT_MEMORY_BYTES`) and key
//! (`memory_bytes`) follow from its name. For each setting the flag wins, then the variable, then the file, then the
//! default; a list is replaced as a whole. Nothing here looks at the disk but for the files that are named as sources.

mod parse;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use h5flight_server::config::{Config, TlsFiles};

use crate::failure::Failure;
use table::{Kind, Setting, TABLE};

/// Name of the variable that names the file.
const CONFIG_VARIABLE: &str = "H5FLIGHT_CONFIG";
/// Settings of the commands that work on the catalogue itself.
const CATALOG_KEYS: [&str; 2] = ["data_dir", "database_url"];
/// Settings of the commands that work on the files as well.
const STORAGE_KEYS: [&str; 3] = ["data_dir", "root", "database_url"];
/// A configuration file is a few kilobytes; whatever is larger is another file.
const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// How variables of the environment are looked up. Those that are empty count as not set: that is what `${NAME:-}` of
/// a compose file leaves.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Settings as they come together; `finish` makes a [`Loaded`] of it.
#[derive(Clone, Debug, Default)]
struct Draft {
    config: Config,
    log: Option<String>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

/// Complete settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// For the server.
    pub config: Config,
    /// Which log lines are written, in the language of `tracing_subscriber::EnvFilter`.
    pub log: String,
}

/// Flags for all settings.
#[derive(Clone, Debug, Default)]
pub struct ServerFlags(Flags);

/// Flags for the settings that say where the catalogue is.
#[derive(Clone, Debug, Default)]
pub struct CatalogFlags(Flags);

/// Flags for the settings that say where the catalogue and the files are.
#[derive(Clone, Debug, Default)]
pub struct StorageFlags(Flags);

#[derive(Clone, Debug, Default)]
struct Flags {
    config_file: Option<PathBuf>,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl ServerFlags {
    /// All settings from all sources.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag, variable or key, and what was expected.
    pub fn load(&self, environment: Environment<'_>) -> Result<Loaded, Failure> {
        self.0.load(environment)
    }
}

impl CatalogFlags {
    /// The settings of the server whose catalogue is meant.
    ///
    /// # Errors
    /// Those of [`ServerFlags::load`].
    pub fn load(&self, environment: Environment<'_>) -> Result<Loaded, Failure> {
        self.0.load(environment)
    }
}

impl StorageFlags {
    /// The settings of the server whose catalogue and files are meant.
    ///
    /// # Errors
    /// Those of [`ServerFlags::load`].
    pub fn load(&self, environment: Environment<'_>) -> Result<Loaded, Failure> {
        self.0.load(environment)
    }
}

/// Implements what clap's derive would for a struct with one field per setting.
macro_rules! flags {
    ($name:ident, $keep:expr) => {
        impl clap::Args for $name {
            fn augment_args(command: Command) -> Command {
                augment(command, $keep)
            }
            fn augment_args_for_update(command: Command) -> Command {
                augment(command, $keep)
            }
        }
        impl clap::FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(Flags::from_matches(matches)))
            }
            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = Flags::from_matches(matches);
                Ok(())
            }
        }
    };
}
flags!(ServerFlags, |_| true);
flags!(CatalogFlags, |key| CATALOG_KEYS.contains(&key));
flags!(StorageFlags, |key| STORAGE_KEYS.contains(&key));

fn augment(command: Command, keep: fn(&str) -> bool) -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").value_parser(clap::value_parser!(PathBuf));
    let file =
        file.help(format!("TOML file with settings; flags and environment win over it [env: {CONFIG_VARIABLE}]"));
    TABLE
        .iter()
        .filter(|setting| keep(setting.key))
        .fold(command.arg(file), |command, setting| command.arg(flag(setting)))
}

fn flag(setting: &Setting) -> Arg {
    let mut help = format!("{} [env: {}]", setting.help, setting.variable());
    if !setting.default.is_empty() && setting.kind != Kind::Switch {
        help.push_str(&format!(" [default: {}]", setting.default));
    }
    let arg = Arg::new(setting.key).long(setting.key.replace('_', "-")).help(help);
    // A flag given twice: the last one counts, so that a script can add to a line that it did not write.
    match setting.kind {
        Kind::One | Kind::Secret => arg.value_name(setting.value).overrides_with(setting.key),
        Kind::List => arg.value_name(setting.value).action(ArgAction::Append),
        Kind::Switch => arg.action(ArgAction::SetTrue).overrides_with(setting.key),
    }
}

impl Flags {
    fn from_matches(matches: &ArgMatches) -> Self {
        let mut values = BTreeMap::new();
        for setting in TABLE {
            let given = match setting.kind {
                Kind::Switch => matches
                    .try_get_one::<bool>(setting.key)
                    .ok()
                    .flatten()
                    .filter(|given| **given)
                    .map(|_| vec!["true".to_owned()]),
                Kind::One | Kind::Secret | Kind::List => {
                    matches.try_get_many::<String>(setting.key).ok().flatten().map(|values| values.cloned().collect())
                }
            };
            if let Some(given) = given {
                values.insert(setting.key, given);
            }
        }
        Self { config_file: matches.get_one::<PathBuf>("config").cloned(), values }
    }

    fn load(&self, environment: Environment<'_>) -> Result<Loaded, Failure> {
        let file = self.config_file.clone().or_else(|| environment(CONFIG_VARIABLE).map(PathBuf::from));
        let file = file.map(|path| ConfigFile::read(&path)).transpose()?;
        let mut draft = Draft::default();
        for setting in TABLE {
            let Some(given) = self.find(setting, environment, file.as_ref())? else { continue };
            for value in &given.values {
                (setting.apply)(&mut draft, value)
                    .map_err(|problem| Failure::usage(format!("{}: {problem}", given.origin)))?;
            }
        }
        draft.finish(environment)
    }

    /// What the strongest source says of a setting.
    fn find(
        &self,
        setting: &Setting,
        environment: Environment<'_>,
        file: Option<&ConfigFile>,
    ) -> Result<Option<Given>, Failure> {
        if let Some(values) = self.values.get(setting.key) {
            let origin = format!("--{}", setting.key.replace('_', "-"));
            return Ok(Some(Given { origin, values: values.clone() }));
        }
        if let Some(given) = from_environment(setting, environment)? {
            return Ok(Some(given));
        }
        file.map_or(Ok(None), |file| file.value(setting))
    }
}

/// What one source says of one setting.
struct Given {
    origin: String,
    values: Vec<String>,
}

fn from_environment(setting: &Setting, environment: Environment<'_>) -> Result<Option<Given>, Failure> {
    let name = setting.variable();
    let value = environment(&name);
    if setting.kind != Kind::Secret {
        let split = |text: String| match setting.kind {
            Kind::List => text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
            Kind::One | Kind::Secret | Kind::Switch => vec![text],
        };
        return Ok(value.map(|text| Given { origin: name, values: split(text) }));
    }
    let file_name = format!("{name}_FILE");
    match (value, environment(&file_name)) {
        (Some(_), Some(_)) => Err(Failure::usage(format!("{name} and {file_name} are both set; keep one of them"))),
        (Some(text), None) => Ok(Some(Given { origin: name, values: vec![text] })),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::usage(format!("{file_name}: {path}: {error}")))?;
            Ok(Some(Given { origin: format!("{file_name} ({path})"), values: vec![text.trim().to_owned()] }))
        }
        (None, None) => Ok(None),
    }
}

/// A TOML file, read and checked for unknown keys.
struct ConfigFile {
    name: String,
    values: toml::Table,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let failed = |problem: String| Failure::usage(format!("configuration file {name}: {problem}"));
        let facts = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
        if facts.len() > CONFIG_FILE_BYTES_MAX {
            return Err(failed(format!("{} bytes, the most is {CONFIG_FILE_BYTES_MAX}", facts.len())));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let values: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            failed(format!("line {line}: {}", error.message().replace('\n', ", ")))
        })?;
        if let Some(unknown) = values.keys().find(|key| !TABLE.iter().any(|setting| setting.key == **key)) {
            let known: Vec<&str> = TABLE.iter().map(|setting| setting.key).collect();
            return Err(failed(format!("unknown setting {unknown:?}; the known ones are {}", known.join(", "))));
        }
        Ok(Self { name, values })
    }

    fn value(&self, setting: &Setting) -> Result<Option<Given>, Failure> {
        let Some(value) = self.values.get(setting.key) else { return Ok(None) };
        let origin = format!("{} in {}", setting.key, self.name);
        let wrong = |found: &toml::Value| {
            let wanted = if setting.kind == Kind::List { "a list of strings" } else { "one value" };
            Failure::usage(format!("{origin}: expected {wanted}, found {}", found.type_str()))
        };
        let values = match (setting.kind, value) {
            (Kind::List, toml::Value::Array(items)) => {
                items.iter().map(|item| plain_text(item).ok_or_else(|| wrong(item))).collect::<Result<_, _>>()?
            }
            (Kind::List, other) => return Err(wrong(other)),
            (Kind::One | Kind::Secret | Kind::Switch, other) => vec![plain_text(other).ok_or_else(|| wrong(other))?],
        };
        Ok(Some(Given { origin, values }))
    }
}

fn plain_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(state) => Some(state.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

impl Draft {
    fn finish(self, environment: Environment<'_>) -> Result<Loaded, Failure> {
        let Self { mut config, log, tls_certificate, tls_key } = self;
        config.tls = match (tls_certificate, tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(Failure::usage("tls_certificate is set but tls_key is not")),
            (None, Some(_)) => return Err(Failure::usage("tls_key is set but tls_certificate is not")),
        };
        for (at, root) in config.roots.iter().enumerate() {
            if config.roots[..at].iter().any(|earlier| earlier.name == root.name) {
                return Err(Failure::usage(format!("root {:?} is given twice; each name means one folder", root.name)));
            }
        }
        // RUST_LOG is what people of the Rust world set; ours says more exactly who is meant.
        let log = log.or_else(|| environment("RUST_LOG")).unwrap_or_else(|| "info".to_owned());
        Ok(Loaded { config, log })
    }
}

#[cfg(test)]
mod tests;
