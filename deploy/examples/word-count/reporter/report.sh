#!/bin/sh
# Writes a Markdown table of the most frequent words. One process a task: the input's lines, each
# a count and a word, come on standard input; standard output is the task's output; whatever is
# left in out/ becomes an artifact of the task. Exit 65 rejects the input.
set -eu

counts=$(cat)
[ -n "$counts" ] || { echo "there is nothing to report" >&2; exit 65; }

mkdir -p out
printf '%s\n' "$counts" | sort -k1,1nr -k2 >out/counts.txt

echo '| word | count |'
echo '|---|---:|'
head -n "${TOP:-20}" out/counts.txt | while read -r count word; do
    printf '| %s | %s |\n' "$word" "$count"
done
