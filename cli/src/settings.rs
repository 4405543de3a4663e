//! `meros settings`: the options of a master with the values in force.

use meros_proto::view::SettingView;

use crate::client::Client;
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::print;
use crate::output::table::layout;

pub(crate) fn settings(args: &list::Args) -> Result<Exit, CliError> {
    let rows: Vec<SettingView> = Client::new(&args.cluster).get("/api/v1/settings")?;
    print(args.output, &rows, |rows| {
        let line = |row: &SettingView| vec![row.option.clone(), row.value.clone()];
        layout(
            &["OPTION", "VALUE"],
            rows.iter().map(line).collect(),
            "no options are known",
        )
    })?;
    Ok(Exit::Success)
}
