//! What the options are, in words: each value with its origin for the operator, and the table of
//! settings for the documentation.

use super::defaults::{listed_app, listed_channel, server_wide};
use super::layer::Origin;
use super::table::{
    APP_REQUIRED, APP_SETTINGS, CHANNEL_REQUIRED, CHANNEL_SETTINGS, HOOK_SETTINGS, ONLY_APP,
    Options, SETTINGS, Setting, WEBHOOK_REQUIRED, WEBHOOK_SETTINGS,
};
use super::{HookOptions, Loaded, WebhookOptions};

impl Loaded {
    /// One line for each setting: name, value, origin. A secret shows its prefix and its length.
    pub fn report(&self) -> String {
        let mut lines = Vec::new();
        for (setting, origin) in SETTINGS.iter().zip(&self.origins) {
            if self.app_origins.is_none() || !ONLY_APP.contains(&setting.name) {
                lines.push(line(
                    setting.name.to_string(),
                    setting.print(&self.options),
                    origin,
                ));
            }
        }
        let app_origins = self.app_origins.iter().flatten();
        for (index, (app, origins)) in self.options.apps.iter().zip(app_origins).enumerate() {
            lines.extend(of_table(
                &format!("apps[{index}]"),
                APP_SETTINGS,
                app,
                &origins.own,
            ));
            for (place, channel) in app.channels.iter().enumerate() {
                let name = format!("apps[{index}].channels[{place}]");
                let origins = &origins.channels[place];
                lines.extend(of_table(&name, CHANNEL_SETTINGS, channel, origins));
            }
            for (place, webhook) in app.webhooks.iter().enumerate() {
                let name = format!("apps[{index}].webhooks[{place}]");
                let origins = &origins.webhooks[place];
                lines.extend(of_table(&name, WEBHOOK_SETTINGS, webhook, origins));
            }
            if let (Some(hook), Some(origins)) = (&app.before_publish, &origins.before_publish) {
                let name = format!("apps[{index}].before_publish");
                lines.extend(of_table(&name, HOOK_SETTINGS, hook, origins));
            }
        }
        aligned(&lines)
    }
}

fn of_table<'a, T>(
    table: &str,
    settings: &'static [Setting<T>],
    target: &'a T,
    origins: &'a [Origin],
) -> impl Iterator<Item = [String; 3]> + use<'a, T> {
    let table = table.to_string();
    let lines = settings.iter().zip(origins);
    lines.map(move |(setting, origin)| {
        line(
            format!("{table}.{}", setting.name),
            setting.print(target),
            origin,
        )
    })
}

fn line(name: String, value: String, origin: &Origin) -> [String; 3] {
    let value = if value.is_empty() {
        "\"\"".to_string()
    } else {
        value
    };
    [name, value, origin.to_string()]
}

fn aligned(lines: &[[String; 3]]) -> String {
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len())
            .max()
            .unwrap_or(0)
    };
    let (name_width, value_width) = (width(0), width(1));
    let mut text = String::new();
    for [name, value, origin] in lines {
        text.push_str(&format!(
            "{name:name_width$}  {value:value_width$}  {origin}\n"
        ));
    }
    text
}

/// The tables of the documentation, which stand between these two lines there.
pub const MARKDOWN_BEGIN: &str = "<!-- options -->";
pub const MARKDOWN_END: &str = "<!-- /options -->";

pub fn markdown() -> String {
    let options = Options::default();
    let mut text = format!("{MARKDOWN_BEGIN}\n");
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            text.push_str(&heading(group));
        }
        text.push_str(&row(setting, &default_for_reading(setting, &options)));
    }
    text.push_str(&heading("Each of `[[apps]]`, in the file only"));
    let app = listed_app(&options);
    rows_with_server_wide(&mut text, APP_SETTINGS, &APP_REQUIRED, &app);
    text.push_str(&heading("Each of `[[apps.channels]]`, in the file only"));
    let channel = listed_channel(&options);
    rows_with_server_wide(&mut text, CHANNEL_SETTINGS, &CHANNEL_REQUIRED, &channel);
    text.push_str(&heading("Each of `[[apps.webhooks]]`, in the file only"));
    let webhook = WebhookOptions::default();
    for setting in WEBHOOK_SETTINGS {
        let default = match WEBHOOK_REQUIRED.contains(&setting.name) {
            true => "required".to_string(),
            false => default_for_reading(setting, &webhook),
        };
        text.push_str(&row(setting, &default));
    }
    text.push_str(&heading("`[apps.before_publish]`, in the file only"));
    let hook = HookOptions::default();
    for setting in HOOK_SETTINGS {
        let default = match WEBHOOK_REQUIRED.contains(&setting.name) {
            true => "required".to_string(),
            false => default_for_reading(setting, &hook),
        };
        text.push_str(&row(setting, &default));
    }
    text.push_str(MARKDOWN_END);
    text.push('\n');
    text
}

/// The rows of a table some of whose settings have the server's value by default.
fn rows_with_server_wide<T>(
    text: &mut String,
    settings: &'static [Setting<T>],
    required: &[&str],
    target: &T,
) {
    for setting in settings {
        let is_server_s = server_wide(setting.name).is_some();
        let default = match setting.name {
            name if required.contains(&name) => "required".to_string(),
            _ if is_server_s => "the server's".to_string(),
            _ => default_for_reading(setting, target),
        };
        text.push_str(&row(setting, &default));
    }
}

/// The default for the help and the documentation. A built-in secret is no secret.
pub fn default_for_reading<T>(setting: &Setting<T>, target: &T) -> String {
    match setting.print_for_reading(target) {
        printed if printed.is_empty() => "empty".to_string(),
        _ if setting.is_secret() => super::BUILT_IN_SECRET.to_string(),
        printed => printed,
    }
}

fn heading(group: &str) -> String {
    format!("\n**{group}**\n\n| setting | default | accepts | what it is |\n|---|---|---|---|\n")
}

fn row<T>(setting: &Setting<T>, default: &str) -> String {
    let (name, accepts, help) = (setting.name, setting.accepts(), setting.help());
    format!("| `{name}` | {default} | {accepts} | {help} |\n")
}
