//! `completions` and `man`: both know every command and every option.

use tokio::process::Command;

use crate::process::{run, within};

const COMMANDS: [&str; 6] = ["serve", "send", "probe", "demo", "completions", "man"];

/// The long options in the help of a command, but for `--help` and `--version`, which every command has.
async fn options(command: &str) -> Vec<String> {
    let help = String::from_utf8(run(&[command, "--help"]).await.stdout).expect("text");
    let first_words = help.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
    let names = first_words.map(|word| word.trim_end_matches(|last: char| !last.is_alphanumeric()).to_owned());
    names.filter(|name| name != "--help" && name != "--version").collect()
}

#[tokio::test]
async fn each_shell_completes_commands_and_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]).await;
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &[][..]), "{shell}");
        let script = String::from_utf8(output.stdout).expect("text");
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
            for option in options(command).await {
                // fish writes them without the dashes.
                assert!(script.contains(option.trim_start_matches('-')), "{shell}: {command} {option}");
            }
        }
    }
}

/// What bash offers for the last of these words. It calls the function that the script has registered.
const COMPLETE: &str = r#"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"$(complete -p tls-shutdown | grep -o '_[^ ]*')" tls-shutdown "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"#;

async fn completed_by_bash(words: &[&str]) -> String {
    let script = [&run(&["completions", "bash"]).await.stdout[..], COMPLETE.as_bytes()].concat();
    let script = String::from_utf8(script).expect("text");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &script, "bash"]).args(words).kill_on_drop(true);
    let output = within(bash.output()).await.expect("bash runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test]
async fn bash_completes_a_command_an_option_and_a_value() {
    assert_eq!(completed_by_bash(&["tls-shutdown", "pro"]).await, "probe");
    assert_eq!(completed_by_bash(&["tls-shutdown", "probe", "--sta"]).await, "--starttls");
    assert_eq!(completed_by_bash(&["tls-shutdown", "probe", "--starttls", "p"]).await, "postgres");
}

#[tokio::test]
async fn each_command_has_a_manual_page_with_all_options_and_examples() {
    let page = String::from_utf8(run(&["man"]).await.stdout).expect("text");
    assert!(page.contains(".TH tls-shutdown 1"), "{page}");
    for command in COMMANDS {
        assert!(page.contains(&format!("tls\\-shutdown\\-{command}(1)")), "{command}: {page}");
        let output = run(&["man", command]).await;
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &[][..]), "{command}");
        let page = String::from_utf8(output.stdout).expect("text");
        assert!(page.contains(&format!(".TH tls-shutdown-{command} 1")), "{page}");
        assert!(page.contains(".SH EXAMPLES\n"), "{page}");
        for option in options(command).await {
            assert!(page.contains(&option.replace('-', "\\-")), "{command} {option}: {page}");
        }
    }
}

#[tokio::test]
async fn a_page_that_does_not_exist_is_wrong_usage() {
    let output = run(&["man", "receive"]).await;
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("serve, send, probe, demo, completions, man"), "{message}");
}
