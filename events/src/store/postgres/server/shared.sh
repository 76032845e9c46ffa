# The server of all tests that run at about the same time: ends when nobody has held its lock for a while.
# $1 the server's programs, $2 a directory that is made and removed again, $3 the lock that its users share
bin=$1 dir=$2
. "$dir.sh"
exec 9<"$3"
rm -rf "$dir"
make
start
while sleep 2; do
    flock -n -x 9 && break
done
kill -INT "$server"
wait "$server"
rm -rf "$dir"
