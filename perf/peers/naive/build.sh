# Builds both servers, for the scripts that start them.
nice -n 5 cargo build --release --locked --manifest-path "$PEERS/naive/Cargo.toml" --target-dir "$ROOT/target/peers/naive" >&2
