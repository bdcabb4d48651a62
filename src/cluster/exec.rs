//! Running commands in pods: the engine's [`PodExec`] over the websocket of the exec subresource.
//!
//! `get` *and* `create` on `pods/exec` are needed: the upgrade is a GET, and a newer API server asks for `create` besides.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::KubeCluster;
use super::request::innermost;
use crate::engine::ports::ApiError;
use crate::engine::ports::exec::{Captured, ExecAnswer, ExecFailure, ExecRequest, PodExec};

#[async_trait]
impl PodExec for KubeCluster {
    async fn exec(&self, request: &ExecRequest) -> ExecAnswer {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &request.namespace);
        let params = AttachParams::default().container(&request.container).stdin(false).stdout(true).stderr(true);
        match pods.exec(&request.pod, &request.command, &params).await {
            Ok(process) => follow(process).await,
            Err(error) => ExecAnswer::silent(Err(refusal(&error))),
        }
    }
}

/// Reads both outputs until the command has ended.
async fn follow(mut process: AttachedProcess) -> ExecAnswer {
    let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
    let (out, err) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let status = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    let outcome = {
        let read = async { tokio::join!(read(out, &mut stdout), read(err, &mut stderr)) };
        tokio::pin!(status, read);
        let status = tokio::select! {
            status = &mut status => {
                // What was sent before the status is in the pipes. They end in order only where the status came.
                if status.is_some() {
                    read.await;
                }
                status
            }
            _ = &mut read => status.await,
        };
        status.map(|status| ended(&status))
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => Err(ExecFailure::Broken(match process.join().await {
            Err(error) => format!("the connection to the command broke: {}", innermost(&error)),
            Ok(()) => "the connection to the command was closed before it told how it ended".to_owned(),
        })),
    };
    ExecAnswer { outcome, stdout, stderr }
}

/// Reads to the end, so that the other side is never held up; what there is no room for is left out.
async fn read(output: Option<impl AsyncRead + Unpin>, captured: &mut Captured) {
    let Some(mut output) = output else { return };
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        captured.push(buffer.get(..length).unwrap_or_default());
    }
}

/// What the status says that ends a command (channel 3 of the remote command protocol).
fn ended(status: &Status) -> Result<(), ExecFailure> {
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref()).into_iter().flatten();
    let code = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.filter_map(|cause| cause.message.as_ref()?.parse().ok()).next();
    if let (Some("NonZeroExitCode"), Some(code)) = (status.reason.as_deref(), code) {
        return Err(ExecFailure::ExitCode(code));
    }
    let message = status.message.clone().unwrap_or_default();
    Err(ExecFailure::Broken(if message.is_empty() {
        "the command failed without a message".to_owned()
    } else {
        message
    }))
}

fn refusal(error: &kube::Error) -> ExecFailure {
    match error {
        kube::Error::Api(status) => {
            let message = if status.message.is_empty() {
                format!("the API server answered {} to a request to run a command", status.code)
            } else {
                status.message.clone()
            };
            ExecFailure::Refused(ApiError::status(status.code, &status.reason, message))
        }
        error => ExecFailure::Broken(format!("the command could not be started: {}", innermost(error))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_status_of_a_command_tells_success_its_exit_code_or_what_went_wrong() {
        let of = |status: Value| ended(&serde_json::from_value(status).unwrap());
        assert_eq!(of(json!({"status": "Success"})), Ok(()));
        let exit = |code: &str| {
            json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code",
                "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
        };
        assert_eq!(of(exit("3")), Err(ExecFailure::ExitCode(3)));
        assert_eq!(of(exit("x")), Err(ExecFailure::Broken("command terminated with exit code".to_owned())));
        let missing = json!({"status": "Failure", "reason": "InternalError", "message": "no such file"});
        assert_eq!(of(missing), Err(ExecFailure::Broken("no such file".to_owned())));
        assert!(of(json!({})).is_err());
    }
}
