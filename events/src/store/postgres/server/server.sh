# What every server of tests has in common; `bin` and `dir` are set.
make() {
    mkdir -m 700 "$dir" &&
        "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >"$dir/log" 2>&1
}
start() {
    "$bin/postgres" -D "$dir/data" -c unix_socket_directories="$dir" -c listen_addresses= -c fsync=on \
        -c synchronous_commit=on -c max_connections=300 -c shared_buffers=64MB -c max_wal_size=256MB \
        >>"$dir/log" 2>&1 9<&- &
    server=$!
}
