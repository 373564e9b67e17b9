using Headroom.Core;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Tests.Data;

/// <summary>Records as conversations, prompts with completions, instructions and texts.</summary>
public sealed class FormTests
{
    private static Example Read(string json, string type, DataOptions? data = null)
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("headroom-forms").FullName, "rows.jsonl");
        try
        {
            File.WriteAllText(path, json + "\n");
            var rows = TaskTypes.Find(type)!.Rows(path, data ?? new(), new(), null);
            return ((ExampleRow)Assert.Single(rows)).Example;
        }
        finally
        {
            Directory.Delete(Path.GetDirectoryName(path)!, true);
        }
    }

    private static Conversation Dialogue(string json, string type = "conversation") =>
        (Conversation)Read(json, type);

    [Fact]
    public void MessagesAreTakenAsTheyAre()
    {
        var c = Dialogue("""
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"role": "assistant", "content": "c", "reasoning_content": "r"}], "id": 4}
            """.Trim());
        Assert.Equal(
            """[{"role":"system","content":"s"},{"role":"user","content":"ab"},{"role":"assistant","content":"c","reasoning_content":"r"}]""",
            c.Messages.ToJsonString());
        Assert.Equal([false, false, true], c.Learned);
        Assert.Null(c.Variables);
    }

    [Fact]
    public void TurnsOfShareGptBecomeMessages()
    {
        var c = Dialogue("""
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"}, {"from": "observation", "value": "1"}, {"from": "gpt", "value": "c"}], "system": "s", "tools": "[{\"name\": \"f\"}]"}
            """.Trim());
        Assert.Equal(
            """[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]},{"role":"tool","content":"1"},{"role":"assistant","content":"c"}]""",
            c.Messages.ToJsonString());
        Assert.Equal([false, false, true, true, false, true], c.Learned);
        Assert.Equal("""{"tools":[{"name":"f"}]}""", c.Variables!.ToJsonString());
    }

    [Fact]
    public void CallsOfToolsHaveArgumentsAsAnObjectAndWeightsAreObeyed()
    {
        var c = Dialogue("""
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "no", "weight": 0}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": [1, \"y\"]}"}}]}, {"role": "assistant", "content": "z", "train": false}], "chat_template_kwargs": {"enable_thinking": false}}
            """.Trim());
        Assert.Equal([false, false, true, false], c.Learned);
        Assert.Equal(
            """{"name":"f","arguments":{"x":[1,"y"]}}""",
            c.Messages[2]!["tool_calls"]![0]!["function"]!.ToJsonString());
        Assert.Null(c.Messages[1]!["weight"]);
        Assert.Equal("false", c.Variables!["enable_thinking"]!.ToJsonString());
    }

    [Fact]
    public void PromptsAndInstructions()
    {
        Assert.Equal(new Completion("a ", "b"), Read("""{"prompt": "a ", "completion": "b"}""", "completion"));
        Assert.Equal(new Completion("", "b"), Read("""{"completion": "b"}""", "completion"));
        var pair = Dialogue(
            """{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "old"}, {"role": "user", "content": "b"}], "completion": [{"role": "assistant", "content": "new"}]}""",
            "completion");
        Assert.Equal([false, false, false, true], pair.Learned);
        var i = (Instruction)Read(
            """{"instruction": "do", "input": "in", "output": "out", "history": [["q", "r"]], "system": "s"}""",
            "instruction");
        Assert.Equal(
            """[{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"r"},{"role":"user","content":"do\nin"},{"role":"assistant","content":"out"}]""",
            i.ToConversation().Messages.ToJsonString());
        Assert.Equal("out", i.ToCompletion().Answer);
        Assert.EndsWith("### Instruction:\ndo\n\n### Input:\nin\n\n### Response:\n", i.ToCompletion().Prompt);
        var mapped = Read(
            """{"q": "a", "a": "b"}""", "completion",
            new() { Columns = new() { ["prompt"] = "q", ["completion"] = "a" } });
        Assert.Equal(new Completion("a", "b"), mapped);
        Assert.Equal(new PlainText("t"), Read("""{"body": "t"}""", "text", new() { TextField = "body" }));
    }

    [Theory]
    [InlineData("""{"x": 1}""", "conversation", "no column 'messages'")]
    [InlineData("""{"messages": null}""", "conversation", "'messages' is null")]
    [InlineData("""{"messages": "hello"}""", "conversation", "'messages' is a string, not a list")]
    [InlineData("""{"messages": []}""", "conversation", "'messages' is an empty list")]
    [InlineData("""{"messages": [1]}""", "conversation", "message 1 is a number")]
    [InlineData("""{"messages": [{"content": "a"}]}""", "conversation", "message 1 has no role (content)")]
    [InlineData("""{"messages": [{"role": "robot", "content": "a"}]}""", "conversation", "the role 'robot'")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}]}""", "conversation", "no message of an assistant")]
    [InlineData("""{"messages": [{"role": "user"}]}""", "conversation", "message 1 has no content")]
    [InlineData("""{"messages": [{"role": "user", "content": 5}]}""", "conversation", "content of message 1")]
    [InlineData("""{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}""", "conversation", "(image_url)")]
    [InlineData("""{"messages": [{"role": "assistant", "content": "a", "weight": 3}]}""", "conversation", "the weight 3")]
    [InlineData("""{"messages": [{"role": "assistant", "content": "a", "weight": 0}]}""", "conversation", "to be learned")]
    [InlineData("""{"messages": [{"role": "assistant", "content": " "}]}""", "conversation", "is empty")]
    [InlineData("""{"messages": [{"role": "assistant", "tool_calls": [{}]}]}""", "conversation", "without a name")]
    [InlineData("""{"messages": [{"role": "assistant", "content": "a"}], "tools": 4}""", "conversation", "tools is")]
    [InlineData("""{"prompt": "a", "completion": ""}""", "completion", "'completion' is empty")]
    [InlineData("""{"prompt": 3, "completion": "a"}""", "completion", "'prompt' is a number")]
    [InlineData("""{"prompt": [{"role": "user", "content": "a"}], "completion": "a"}""", "completion", "not a list")]
    [InlineData("""{"instruction": "a"}""", "instruction", "no column 'output'")]
    [InlineData("""{"instruction": "a", "output": "b", "input": []}""", "instruction", "'input' is an array")]
    [InlineData("""{"instruction": "a", "output": "b", "history": [["q"]]}""", "instruction", "an item of 'history'")]
    [InlineData("""{"text": "  "}""", "text", "'text' is empty")]
    [InlineData("""{"text": {"a": 1}}""", "text", "'text' is an object")]
    public void BadRowsAreNamed(string json, string type, string says)
    {
        var e = Assert.Throws<HeadroomException>(() => Read(json, type));
        Assert.Contains("rows.jsonl, line 1: ", e.Message, StringComparison.Ordinal);
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.False(string.IsNullOrWhiteSpace(e.ToDo));
        Assert.Equal(2, e.ExitCode);
    }

    [Theory]
    [InlineData("messages id", "conversation")]
    [InlineData("conversations system", "conversation")]
    [InlineData("prompt completion", "completion")]
    [InlineData("instruction input output", "instruction")]
    [InlineData("text label", "label_words")]
    [InlineData("text", "text")]
    [InlineData("text messages", "conversation")]
    [InlineData("a b", null)]
    public void TasksAreToldByTheColumns(string columns, string? task) =>
        Assert.Equal(task, TaskTypes.Recognize(columns.Split(' '), new())?.Type.Name);

    [Fact]
    public void ARecipeThatLeavesItsTaskToTheDataGetsOne()
    {
        var recipe = RecipeLoader.Parse("data: {train: x.jsonl}");
        Assert.Equal("auto", recipe.Task.Type);
        Assert.Equal("label_words", RecipeLoader.Parse("data: {train: x.jsonl, label_field: y}").Task.Type);
        Assert.Equal("label_words", RecipeLoader.Parse("data: {train: embedded:reviews}").Task.Type);
        var e = Assert.Throws<HeadroomException>(() =>
            RecipeLoader.Parse("data: {train: x.jsonl, columns: {promt: a}}\ntask: {type: completion}"));
        Assert.Contains("'promt'", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<HeadroomException>(() =>
            RecipeLoader.Parse("data: {train: x.jsonl}\ntask: {type: text, last_turn_only: true}"));
        Assert.Contains("does not take task.last_turn_only", e.Message, StringComparison.Ordinal);
    }
}
