//! Child processes that never outlive the test process.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs "$@" and kills it when standard input ends, which it does when whoever holds the other end of the pipe is gone,
/// by whatever way: the kernel closes it. That holds for panics, for `exit` (statics are not dropped) and for SIGKILL. A
/// signal to the whole process group (Ctrl-C, `timeout`) must not take the watcher along: a kube-apiserver that is asked
/// to end after its etcd did waits for ever, so somebody has to be left to kill it.
///
/// The signals are ignored from the first moment on, which what it runs must not inherit: one that comes while the watcher
/// is not there yet would leave nobody to end the program.
const KEEPER: &str = r#"
trap '' HUP INT TERM
exec 3<&0
(trap - HUP INT TERM; exec "$@") 3<&- </dev/null &
child=$!
{ cat <&3 >/dev/null; kill -KILL "$child"; } 2>/dev/null &
watcher=$!
exec 3<&- </dev/null
trap - HUP INT
trap 'kill -TERM "$child" 2>/dev/null' TERM
wait "$child"; code=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
kill -KILL "$watcher" 2>/dev/null
exit "$code"
"#;

/// A child process with its output in a file; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    keeper: Child,
    name: String,
    pub(crate) log: PathBuf,
}

impl Process {
    /// Starts `command` (program, arguments, environment, folder) with its output going to `log`.
    pub(crate) fn start(name: &str, command: &Command, log: &Path) -> Result<Self, String> {
        let output = File::create(log).map_err(|e| format!("making {}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| format!("sharing {}: {e}", log.display()))?;
        let mut keeper = Command::new("sh");
        keeper.arg("-c").arg(KEEPER).arg("keeper").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => keeper.env(key, value),
                None => keeper.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            keeper.current_dir(folder);
        }
        let keeper = keeper
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("starting {name}: {e}"))?;
        Ok(Self { keeper, name: name.to_string(), log: log.to_path_buf() })
    }

    /// The process group of the keeper and of what it runs.
    pub(crate) fn group(&self) -> u32 {
        self.keeper.id()
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.keeper.try_wait().ok().flatten()
    }

    /// Asks it to end (SIGTERM) and waits so long; `None` if it did not, and was killed.
    pub(crate) fn terminate(&mut self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        // std can only kill; the keeper hands this signal on to its child, once it is ready to.
        while Instant::now() < end && !catches_sigterm(self.keeper.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = Command::new("kill").arg("-TERM").arg(self.keeper.id().to_string()).stderr(Stdio::null()).status();
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if Instant::now() >= end {
                self.kill();
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }

    /// The end of its output, under a heading.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        format!("--- {} ({})\n{}\n", self.name, self.log.display(), all[all.len().saturating_sub(lines)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process has a handler for SIGTERM, as far as the system tells (proc(5), `SigCgt`).
fn catches_sigterm(process: u32) -> bool {
    const SIGTERM: u64 = 15;
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return true };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask >> (SIGTERM - 1) & 1 == 1)
}

/// Removes a folder when the test process is gone, for what a static that is never dropped leaves behind.
#[derive(Debug)]
pub(crate) struct FolderKeeper {
    keeper: Child,
}

impl FolderKeeper {
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        // The processes writing there are killed by their keepers at the same moment; give them that moment.
        let keeper = Command::new("sh")
            .args([
                "-c",
                r#"trap '' INT TERM HUP; cat >/dev/null; sleep 1; rm -rf -- "$1"; sleep 1; rm -rf -- "$1""#,
                "keeper",
            ])
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("starting sh: {e}"))?;
        Ok(Self { keeper })
    }
}

impl Drop for FolderKeeper {
    fn drop(&mut self) {
        // It ends by itself soon after; waiting would only slow the test down.
        drop(self.keeper.stdin.take());
    }
}

/// A port that was free a moment ago. Whoever uses it must be ready to try another one.
pub(crate) fn free_port() -> Result<u16, String> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(|e| format!("finding a free port: {e}"))
}
