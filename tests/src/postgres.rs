//! A private PostgreSQL for tests: its own data folder, reached over a Unix socket inside it, gone when dropped.
//!
//! Uses the programs of an installed PostgreSQL (Debian's `/usr/lib/postgresql/*/bin`, or those on `PATH`). PostgreSQL
//! refuses to run as root; tests that do run it as the user `postgres`. Nothing is flushed to disk: a test that needs
//! crash safety of PostgreSQL itself is not ours to write.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// The user that PostgreSQL runs as where the tests run as root.
const UNPRIVILEGED_USER: &str = "postgres";
/// Settings that make it small and quick.
const SETTINGS: &str = "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c shared_buffers=64MB \
                        -c max_connections=200 -c autovacuum_naptime=5s";

/// A running server.
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    as_root: bool,
}

impl Postgres {
    /// Makes a cluster and starts it; takes about two seconds.
    ///
    /// # Errors
    /// With the line to run where PostgreSQL is not installed.
    pub fn start() -> Result<Self> {
        let programs = installed_programs()?;
        let folder = tempfile::Builder::new().prefix("h5pg").tempdir().context("making a folder for PostgreSQL")?;
        let as_root = std::fs::metadata("/proc/self")?.uid() == 0;
        if as_root {
            std::os::unix::fs::chown(folder.path(), Some(unprivileged_id("-u")?), Some(unprivileged_id("-g")?))?;
        }
        let mut server = Self { folder, programs, as_root };
        let mut initdb = server.program("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        run(initdb.arg(server.data()))?;
        server.resume()?;
        Ok(server)
    }

    /// The URL of a database of this name, which is made where it is missing.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn url(&self, database: &str) -> String {
        let made =
            self.program("createdb").arg("-h").arg(self.folder.path()).args(["-U", "postgres", database]).output();
        let made = made.expect("createdb can be started");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success() || said.contains("already exists"), "createdb {database}: {said}");
        format!("postgres:///{database}?host={}&user=postgres", self.folder.path().display())
    }

    /// Stops it at once, as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&mut self) -> Result<()> {
        run(self.program("pg_ctl").args(["stop", "--silent", "--wait", "--mode=immediate", "-D"]).arg(self.data()))
            .map(|_| ())
    }

    /// Starts it again after [`Postgres::stop`], and waits until it accepts connections.
    ///
    /// # Errors
    /// What the server's log says.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.folder.path().join("log");
        let settings = format!("{SETTINGS} -c unix_socket_directories='{}'", self.folder.path().display());
        let mut pg_ctl = self.program("pg_ctl");
        pg_ctl.args(["start", "--silent", "--wait", "--timeout=60", "-o", &settings, "-l"]).arg(&log);
        run(pg_ctl.arg("-D").arg(self.data()))
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
            .map(|_| ())
    }

    /// A crash and a new start.
    ///
    /// # Errors
    /// As for [`Postgres::stop`] and [`Postgres::resume`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.resume()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of PostgreSQL, run as a user that PostgreSQL accepts.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match self.as_root {
            true => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={UNPRIVILEGED_USER}")).arg(format!("--regid={UNPRIVILEGED_USER}"));
                command.args(["--clear-groups", "--"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        // The folder that tests run in may be closed to the other user.
        command.current_dir("/");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Already stopped is fine; anything else shows as a process that outlives the test.
        let _ = self.stop();
    }
}

/// The folder with the programs of the newest PostgreSQL installed.
fn installed_programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    found.sort();
    if let Some((_, programs)) = found.pop() {
        return Ok(programs);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    on_path.context("this test needs PostgreSQL: apt-get install postgresql")
}

fn unprivileged_id(option: &str) -> Result<u32> {
    let output = run(Command::new("id").args([option, UNPRIVILEGED_USER]))?;
    String::from_utf8(output.stdout)?.trim().parse().context("id gives a number")
}

/// Runs to the end. What it prints is shown only where it fails.
fn run(command: &mut Command) -> Result<Output> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.output().with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}
