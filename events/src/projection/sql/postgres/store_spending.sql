-- $1 JSON array of [crew, messages, input tokens, output tokens, cost]: what was used beyond what is counted already, a crew at most once
-- No sum counts further than 2^60.
INSERT INTO spending (
    crew, messages, input_tokens, output_tokens, cost_micros
)
SELECT
    new ->> 0, (new ->> 1)::bigint, (new ->> 2)::bigint, (new ->> 3)::bigint, (new ->> 4)::bigint
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (crew) DO UPDATE
SET
    messages = least(spending.messages + excluded.messages, 1152921504606846976),
    input_tokens = least(spending.input_tokens + excluded.input_tokens, 1152921504606846976),
    output_tokens = least(spending.output_tokens + excluded.output_tokens, 1152921504606846976),
    cost_micros = least(spending.cost_micros + excluded.cost_micros, 1152921504606846976)
