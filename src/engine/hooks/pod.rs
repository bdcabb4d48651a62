//! The hooks of one pod: waiting until its containers are up, and running the commands (restore-semantics 5.12).

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::plan::{ContainerHooks, Hook, PodHooks};
use super::states::Seen;
use crate::engine::events::{Event, LogLevel};
use crate::engine::ports::exec::{Captured, ExecRequest};
use crate::model::GoDuration;

/// A created pod that has hooks.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Of the pod that was created; another of that name is not the one.
    pub(super) uid: String,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Runs the hooks of a pod, and gives a message for each that failed, in their order.
///
/// Each hook is recorded once: one that expired and then went well has failed, as in Velero.
pub(super) async fn run(shared: Arc<Shared>, pod: Pod, hooks: PodHooks) -> Vec<String> {
    let mut task = Task { shared: &shared, pod: &pod, begun: Instant::now(), failures: Vec::new() };
    let deadline = hooks.wait_limit().and_then(|limit| task.begun.checked_add(limit));
    let mut open = hooks.containers;
    if let Err(why) = task.work(&mut open, deadline).await {
        for ContainerHooks { container, hooks } in &open {
            for hook in hooks {
                let name = &hook.name;
                task.fail(format!("hook {name} in container {container} in pod {pod} not executed: {why}"));
            }
        }
    }
    task.failures
}

struct Task<'a> {
    shared: &'a Shared,
    pod: &'a Pod,
    begun: Instant,
    failures: Vec<String>,
}

impl Task<'_> {
    /// Takes hooks that were dealt with from `open`; an error says why the rest is not.
    async fn work(&mut self, open: &mut Vec<ContainerHooks>, deadline: Option<Instant>) -> Result<(), String> {
        if let Some(reason) = self.shared.exec.unavailable() {
            return Err(reason.to_owned());
        }
        let mut states = self.shared.states.of_pod(&self.pod.namespace, &self.pod.name);
        let over = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        while !open.is_empty() {
            let seen = tokio::select! {
                biased;
                () = &mut over => return Err("the wait timeouts of its hooks passed before it was up".to_owned()),
                seen = states.next() => seen,
            };
            let state = match seen {
                Seen::Nothing => continue,
                Seen::Gone => return Err("the pod was deleted".to_owned()),
                Seen::Pod(state) => state,
            };
            if !self.pod.uid.is_empty() && state.uid != self.pod.uid {
                return Err("the pod was deleted, and another one has its name".to_owned());
            }
            if state.is_over() {
                return Err(format!("the pod entered phase {}", state.phase));
            }
            // One that is up is done with, however its hooks end.
            while let Some(up) = open.iter().position(|container| container.is_up(&state)) {
                while let Some(hook) = open[up].hooks.first().cloned() {
                    let container = open[up].container.clone();
                    open[up].hooks.remove(0);
                    self.run_hook(&container, &hook).await?;
                }
                open.remove(up);
            }
        }
        Ok(())
    }

    /// An error when what follows is not to be run.
    async fn run_hook(&mut self, container: &str, hook: &Hook) -> Result<(), String> {
        let name = &hook.name;
        let stopped = || format!("hook {name} in container {container} failed, and its onError is Fail");
        let expired = hook.wait_timeout.is_some_and(|limit| self.begun.elapsed() > limit);
        if expired {
            self.fail(format!("hook {name} in container {container} in pod {} expired before executing", self.pod));
            if hook.stops_on_error {
                return Err(stopped());
            }
        }
        let Err(error) = self.exec(container, hook).await else { return Ok(()) };
        let message =
            format!("hook {name} in container {container} in pod {} failed to execute, err: {error}", self.pod);
        if expired {
            self.log(LogLevel::Error, message);
        } else {
            self.fail(message);
        }
        if hook.stops_on_error { Err(stopped()) } else { Ok(()) }
    }

    async fn exec(&self, container: &str, hook: &Hook) -> Result<(), String> {
        if hook.command.is_empty() {
            return Err("command is required".to_owned());
        }
        let what = format!("hook {} in container {container} in pod {}", hook.name, self.pod);
        let request = ExecRequest {
            namespace: self.pod.namespace.clone(),
            pod: self.pod.name.clone(),
            container: container.to_owned(),
            command: hook.command.clone(),
        };
        // Never closed.
        let _permit = self.shared.execs.acquire().await;
        self.log(LogLevel::Info, format!("{what}: running {:?}", hook.command));
        let exec = self.shared.exec.exec(&request);
        let answer = match hook.exec_timeout {
            None => exec.await,
            Some(limit) => match tokio::time::timeout(limit, exec).await {
                Ok(answer) => answer,
                // The command is not killed; there is no way to.
                Err(_) => return Err(format!("timed out after {}", GoDuration::from(limit))),
            },
        };
        let output = |stream: &str, output: &Captured| {
            if !output.is_empty() {
                self.log(LogLevel::Info, format!("{what}: {stream}: {output}"));
            }
        };
        output("stdout", &answer.stdout);
        output("stderr", &answer.stderr);
        answer.outcome.map_err(|failure| failure.to_string())?;
        self.log(LogLevel::Info, format!("{what}: ended well"));
        Ok(())
    }

    fn fail(&mut self, message: String) {
        self.log(LogLevel::Error, message.clone());
        self.failures.push(message);
    }

    fn log(&self, level: LogLevel, message: String) {
        self.shared.events.emit(Event::Log(level, message));
    }
}
