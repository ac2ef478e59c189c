"""The official Python SDKs (openai, anthropic) against a running server: chat, stream, tools, json_schema, errors, cancel.

python sdk.py DEMO SCRIPTED: addresses of a server with the demo model, and of one whose model always answers with two calls
of the tool "weather", of Bern and of Basel. `bun run sdk` starts both.
"""

import json
import sys
import time
import urllib.request

import anthropic
import openai
from pydantic import BaseModel

demo, scripted = sys.argv[1:3]
question = [{"role": "user", "content": "What is 27 + 58?"}]
story = [{"role": "user", "content": "Tell me a story about a fox."}]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
done = []


class Sum(BaseModel):
    first: int
    second: int


schema = {**Sum.model_json_schema(), "additionalProperties": False}


def check(sdk, name):
    """Runs at once; what it raises ends the script with its place."""

    def run(body):
        body()
        done.append(name)
        print(f"{sdk.__name__} {sdk.__version__}: {name}")

    return run


def running():
    health = json.load(urllib.request.urlopen(f"{demo}/health"))
    return sum(engine["running"] for engine in health["engines"])


def ends():
    """An answer that nobody reads any more leaves the batch."""
    for _ in range(200):
        if running() == 0:
            return True
        time.sleep(0.02)
    return False


def raised(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


# ---- openai

client = openai.OpenAI(base_url=f"{demo}/v1", api_key="any", max_retries=0)
told = openai.OpenAI(base_url=f"{scripted}/v1", api_key="any", max_retries=0)
endless = {"model": "demo", "messages": story, "max_tokens": 900, "logit_bias": {"0": -100, "2": -100}}
tools = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": parameters}}]


@check(openai, "chat")
def _():
    answer = client.chat.completions.create(model="demo", messages=question, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content.endswith("85."), answer
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].logprobs.content) >= 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert len(client.embeddings.create(model="demo", input=["a", "b"]).data) == 2
    assert client.completions.create(model="demo", prompt="Once upon a", max_tokens=4).choices[0].text.strip()
    assert [model.id for model in client.models.list()] == ["demo"]


@check(openai, "stream")
def _():
    whole = client.chat.completions.create(model="demo", messages=question).choices[0].message.content
    options = {"include_usage": True}
    stream = client.chat.completions.create(model="demo", messages=question, stream=True, stream_options=options)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage.completion_tokens > 20
    with client.chat.completions.stream(model="demo", messages=question) as helper:
        assert helper.get_final_completion().choices[0].message.content == whole


@check(openai, "tools")
def _():
    answer = told.chat.completions.create(model="m", messages=question, tools=tools)
    calls = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Bern"}, {"city": "Basel"}]
    with told.chat.completions.stream(model="m", messages=question, tools=tools) as helper:
        streamed = helper.get_final_completion().choices[0].message.tool_calls
    assert [call.function.arguments for call in streamed] == [call.function.arguments for call in calls]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls]
    messages = [*question, answer.choices[0].message, *results]
    assert told.chat.completions.create(model="m", messages=messages, tools=tools).choices
    one = told.chat.completions.create(model="m", messages=question, tools=tools, parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls) == 1


@check(openai, "json_schema")
def _():
    answer = client.chat.completions.parse(model="demo", messages=question, response_format=Sum, max_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, Sum), answer
    one_of = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    answer = client.chat.completions.create(model="demo", messages=question, response_format=one_of)
    assert json.loads(answer.choices[0].message.content) in ("yes", "no")


@check(openai, "responses")
def _():
    first = client.responses.create(model="demo", input="What is 27 + 58?")
    assert first.output_text.endswith("85.")
    with client.responses.stream(model="demo", input="What is 27 + 58?") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == first.output_text
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    second = client.responses.create(model="demo", input="And 1 + 1?", previous_response_id=first.id)
    assert client.responses.retrieve(second.id).previous_response_id == first.id
    parsed = client.responses.parse(model="demo", input="Say it.", text_format=Sum, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, Sum)
    functions = [{"type": "function", "name": "weather", "parameters": parameters, "strict": False}]
    called = told.responses.create(model="m", input="Weather?", tools=functions)
    assert [item.type for item in called.output] == ["function_call", "function_call"]


@check(openai, "errors")
def _():
    error = raised(openai.BadRequestError, lambda: client.chat.completions.create(model="d", messages=[]))
    assert error.param == "messages" and error.type == "invalid_request_error", error.body
    extra = {"tempreature": 1}
    unknown = lambda: client.chat.completions.create(model="d", messages=question, extra_body=extra)
    assert "temperature" in str(raised(openai.BadRequestError, unknown))
    raised(openai.NotFoundError, lambda: client.models.retrieve("nothing"))
    raised(openai.NotFoundError, lambda: client.responses.retrieve("resp_none"))


@check(openai, "cancel")
def _():
    stream = client.chat.completions.create(**endless, stream=True)
    next(iter(stream))
    assert running() == 1
    stream.close()
    assert ends()
    raised(openai.APITimeoutError, lambda: client.with_options(timeout=0.3).chat.completions.create(**endless))
    assert ends()


# ---- anthropic

claude = anthropic.Anthropic(base_url=demo, api_key="any", max_retries=0)
told_claude = anthropic.Anthropic(base_url=scripted, api_key="any", max_retries=0)
asked = {"model": "m", "max_tokens": 200, "messages": question}
offered = [{"name": "weather", "description": "of a city", "input_schema": parameters}]


@check(anthropic, "chat")
def _():
    message = claude.messages.create(**asked, system="Be brief.")
    assert message.stop_reason == "end_turn" and message.content[0].text
    counted = claude.messages.count_tokens(model="m", messages=question, system="Be brief.")
    assert counted.input_tokens == message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert [model.id for model in claude.models.list()] == ["demo"]


@check(anthropic, "stream")
def _():
    whole = claude.messages.create(**asked).content[0].text
    with claude.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == whole
        assert stream.get_final_message().stop_reason == "end_turn"


@check(anthropic, "tools")
def _():
    message = told_claude.messages.create(**asked, tools=offered)
    uses = [block for block in message.content if block.type == "tool_use"]
    assert message.stop_reason == "tool_use" and [use.input for use in uses] == [{"city": "Bern"}, {"city": "Basel"}]
    with told_claude.messages.stream(**asked, tools=offered) as stream:
        streamed = [block.input for block in stream.get_final_message().content if block.type == "tool_use"]
    assert streamed == [use.input for use in uses]
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"} for use in uses]
    messages = [*question, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    assert told_claude.messages.create(model="m", max_tokens=200, messages=messages, tools=offered).content


@check(anthropic, "json_schema")
def _():
    form = {"format": {"type": "json_schema", "schema": schema}}
    Sum.model_validate_json(claude.messages.create(**asked, output_config=form).content[0].text)
    assert isinstance(claude.messages.parse(**asked, output_format=Sum).parsed_output, Sum)


@check(anthropic, "errors")
def _():
    error = raised(anthropic.BadRequestError, lambda: claude.messages.create(**{**asked, "messages": []}))
    assert error.body["type"] == "error" and error.body["error"]["type"] == "invalid_request_error", error.body
    tool = [{"type": "web_search_20250305", "name": "web_search"}]
    raised(anthropic.BadRequestError, lambda: claude.messages.create(**asked, tools=tool))


@check(anthropic, "cancel")
def _():
    with claude.messages.stream(model="m", max_tokens=900, messages=story) as stream:
        next(iter(stream.text_stream))
    assert ends()


print(f"{len(done)} checks passed")
