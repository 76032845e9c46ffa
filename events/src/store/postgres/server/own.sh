# A server of one test: does what it is told line by line, and ends with whoever tells.
# $1 the server's programs, $2 a directory that is made and removed again
bin=$1 dir=$2
. "$dir.sh"
rm -f "$dir.sh"
make
start
while read -r order; do
    case $order in
        stop) kill -INT "$server"; wait "$server" ;;
        kill) kill -KILL "$server"; wait "$server" ;;
        # What was killed may still be there for a moment, and then a start fails; it is asked for again.
        start) kill -0 "$server" 2>/dev/null || start ;;
    esac
    echo "$order"
done
kill -INT "$server"
wait "$server"
rm -rf "$dir"
