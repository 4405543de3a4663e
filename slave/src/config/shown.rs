//! The settings in force, as they can be written in a configuration file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use meros_proto::view::SettingView;

use super::Config;

impl Config {
    /// Each option with its value, whether it was given or is the default; what the system is asked for
    /// instead is empty. Nothing in them is secret.
    #[must_use]
    pub fn settings(&self) -> Vec<SettingView> {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let path = |path: &Path| path.display().to_string();
        let paths = |paths: &[PathBuf]| {
            let paths: Vec<String> = paths.iter().map(|it| path(it)).collect();
            paths.join(",")
        };
        let settings = [
            ("masters", self.masters.join(",")),
            ("http_listen", self.http_listen.to_string()),
            ("hostname", self.hostname.clone().unwrap_or_default()),
            ("data_dir", path(&self.data_dir)),
            ("identity", path(&self.identity)),
            ("resources", self.resources.to_string()),
            ("attributes", self.attributes.to_string()),
            ("cgroup_root", self.cgroup_root.clone()),
            ("cpu_quota", self.cpu_quota.to_string()),
            ("task_pids_max", self.task_pids_max.to_string()),
            ("isolation", self.isolation.to_string()),
            ("task_devices", paths(&self.task_devices)),
            ("exec", self.exec.to_string()),
            ("task_open_files_max", self.task_open_files_max.to_string()),
            ("log_bytes_max", self.log_bytes_max.to_string()),
            ("fetch_folders", paths(&self.fetch_folders)),
            (
                "fetch_file_bytes_max",
                self.fetch_file_bytes_max.to_string(),
            ),
            (
                "fetch_task_bytes_max",
                self.fetch_task_bytes_max.to_string(),
            ),
            (
                "fetch_cache_bytes_max",
                self.fetch_cache_bytes_max.to_string(),
            ),
            ("fetch_stall_timeout", time(self.fetch_stall_timeout)),
            (
                "fetch_ca",
                self.fetch_ca.as_deref().map(path).unwrap_or_default(),
            ),
            ("image_bytes_max", self.image_bytes_max.to_string()),
            (
                "image_store_bytes_max",
                self.image_store_bytes_max.to_string(),
            ),
            (
                "image_insecure_registries",
                self.image_insecure_registries.join(","),
            ),
            (
                "image_credentials",
                self.image_credentials
                    .as_deref()
                    .map(path)
                    .unwrap_or_default(),
            ),
            (
                "tasks_end_with_slave",
                self.tasks_end_with_slave.to_string(),
            ),
            ("stop_grace", time(self.stop_grace)),
            (
                "authenticate_executors",
                self.authenticate_executors.to_string(),
            ),
            (
                "executor_registration_timeout",
                time(self.executor_registration_timeout),
            ),
            (
                "executor_reregistration_timeout",
                time(self.executor_reregistration_timeout),
            ),
        ];
        let setting = |(option, value): (&str, String)| SettingView {
            option: option.to_owned(),
            value,
            of_cluster: false,
        };
        settings.into_iter().map(setting).collect()
    }
}
