-- $1 JSON array of [crew, messages, input tokens, output tokens, cost]: what was used beyond what is counted already, a crew at most once
-- No sum counts further than 2^60.
INSERT INTO spending (crew, messages, input_tokens, output_tokens, cost_micros)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4
FROM json_each($1)
WHERE true
ON CONFLICT (crew) DO UPDATE
SET
    messages = min(messages + excluded.messages, 1152921504606846976),
    input_tokens = min(input_tokens + excluded.input_tokens, 1152921504606846976),
    output_tokens = min(output_tokens + excluded.output_tokens, 1152921504606846976),
    cost_micros = min(cost_micros + excluded.cost_micros, 1152921504606846976)
