//! What can be seen to be wrong before anything is bound or opened, told in the words of the settings.

use std::fs::{File, OpenOptions};
use std::path::Path;

use h5flight_server::config::Config;

use crate::command::backup;
use crate::failure::Failure;

/// Checks folders and files that the settings name. Makes the data folder where it is missing.
///
/// # Errors
/// `start`, naming the setting and the path.
pub fn check(config: &Config) -> Result<(), Failure> {
    for root in &config.roots {
        folder(&root.path).map_err(|problem| refusal(&format!("root {:?}", root.name), &root.path, &problem))?;
    }
    let data_dir = &config.data_dir;
    writable(data_dir).map_err(|problem| refusal("data_dir", data_dir, &problem))?;
    if data_dir.join(backup::UNFINISHED).exists() {
        let problem = "was not wholly restored from a backup; run `h5flight backup restore` again";
        return Err(refusal("data_dir", data_dir, problem));
    }
    if let Some(tls) = &config.tls {
        for (name, path) in [("tls_certificate", &tls.certificate), ("tls_key", &tls.key)] {
            readable(path).map_err(|problem| refusal(name, path, &problem))?;
        }
    }
    if let Some(folder_of_socket) = config.unix_socket.as_deref().and_then(Path::parent) {
        let path = if folder_of_socket.as_os_str().is_empty() { Path::new(".") } else { folder_of_socket };
        folder(path).map_err(|problem| refusal("folder of unix_socket", path, &problem))?;
    }
    Ok(())
}

fn refusal(what: &str, path: &Path, problem: &str) -> Failure {
    Failure::local("start", format!("{what}: {} {problem}", path.display()))
}

fn folder(path: &Path) -> Result<(), String> {
    let entries = std::fs::read_dir(path);
    entries.map(drop).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        std::io::ErrorKind::NotADirectory => "is not a folder".to_owned(),
        _ => format!("cannot be listed: {error}"),
    })
}

fn readable(path: &Path) -> Result<(), String> {
    let facts = File::open(path).and_then(|file| file.metadata());
    match facts {
        Ok(facts) if facts.is_file() => Ok(()),
        Ok(_) => Err("is not a file".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("does not exist".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Permission bits do not tell (read-only mounts, access lists, root): only writing does.
fn writable(path: &Path) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|error| format!("cannot be made: {error}"))?;
    let probe = path.join(format!(".h5flight-write-test-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .map_err(|error| format!("is not writable: {error}"))?;
    std::fs::remove_file(&probe).map_err(|error| format!("does not let files be removed: {error}"))
}

#[cfg(test)]
mod tests {
    use h5flight_server::config::{Root, TlsFiles};

    use super::*;
    use crate::output::Form;

    #[test]
    fn each_missing_thing_is_named_with_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let here = |name: &str| folder.path().join(name);
        std::fs::write(here("file"), "").unwrap();
        let good = Config { data_dir: here("data"), ..Config::default() };
        let root = |path| Config { roots: vec![Root { name: "lab".into(), path }], ..good.clone() };
        let tls = |certificate, key| Config { tls: Some(TlsFiles { certificate, key }), ..good.clone() };
        let cases = [
            (root(here("none")), "root \"lab\": DIR/none does not exist"),
            (root(here("file")), "root \"lab\": DIR/file is not a folder"),
            (
                Config { data_dir: here("file"), ..good.clone() },
                "data_dir: DIR/file cannot be made: File exists (os error 17)",
            ),
            (tls(here("none"), here("file")), "tls_certificate: DIR/none does not exist"),
            (tls(here("file"), here("data")), "tls_key: DIR/data is not a file"),
            (
                Config { unix_socket: Some(here("none/s")), ..good.clone() },
                "folder of unix_socket: DIR/none does not exist",
            ),
        ];
        assert!(check(&good).is_ok());
        for (config, expected) in cases {
            let said = check(&config).unwrap_err().text(Form::People).unwrap();
            let said = said.replace(folder.path().to_str().unwrap(), "DIR");
            assert_eq!(said, format!("error: {expected}"));
        }
        assert_eq!(std::fs::read_dir(here("data")).unwrap().count(), 0, "the write test leaves nothing behind");
    }
}
