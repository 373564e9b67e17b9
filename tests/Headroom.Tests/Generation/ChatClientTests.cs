using Headroom.Core;
using Headroom.Inference;
using Microsoft.Extensions.AI;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;

namespace Headroom.Tests.Generation;

public sealed class ChatClientTests
{
    private static readonly ChatMessage[] Hello = [new(ChatRole.System, "Be brief."), new(ChatRole.User, "Hi")];
    private static readonly ChatOptions Options = new()
    {
        Temperature = 1,
        TopK = 40,
        TopP = 0.95f,
        Seed = 3,
        MaxOutputTokens = 30,
    };

    private static HeadroomChatClient Open(params int[] ends) => new(ByteModel.Open(400, null, ends), "bytes");

    [Fact]
    public async Task ResponseAndStreamAreTheSame()
    {
        using var client = Open();
        var response = await client.GetResponseAsync(Hello, Options);
        Assert.Equal(ChatFinishReason.Length, response.FinishReason);
        Assert.Equal(ChatRole.Assistant, response.Messages.Single().Role);
        string prompt =
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
        int tokens = new ByteTokenizer().Encode(prompt).Length;
        Assert.Equal(
            (tokens, 30, tokens + 30),
            (response.Usage!.InputTokenCount, response.Usage.OutputTokenCount, response.Usage.TotalTokenCount));
        Assert.Equal("bytes", response.ModelId);
        // What the generator makes of the same prompt.
        using (var generator = ByteModel.Open())
            Assert.Equal(
                generator
                    .Run(
                        new ByteTokenizer().Encode(prompt),
                        new GenerationOptions
                        {
                            MaxNewTokens = 30,
                            Sampling = new SamplingOptions
                            {
                                Temperature = 1,
                                TopK = 40,
                                TopP = 0.95f,
                                Seed = 3,
                            },
                        }
                    )
                    .Text,
                response.Text
            );

        var updates = new List<ChatResponseUpdate>();
        await foreach (var u in client.GetStreamingResponseAsync(Hello, Options)) updates.Add(u);
        Assert.True(updates.Count > 5);
        var streamed = updates.ToChatResponse();
        Assert.Equal(response.Text, streamed.Text);
        Assert.Equal(ChatFinishReason.Length, streamed.FinishReason);
        Assert.Equal((tokens, 30), (streamed.Usage!.InputTokenCount, streamed.Usage.OutputTokenCount));
        Assert.Equal(tokens - 1, streamed.Usage.CachedInputTokenCount); // the same prompt stood in the cache
        Assert.Single(updates.Select(u => u.ResponseId).Distinct());
    }

    [Fact]
    public async Task OptionsCount()
    {
        using var client = Open();
        string whole = (await client.GetResponseAsync(Hello, Options)).Text;
        var other = Options.Clone();
        other.Seed = 4;
        Assert.NotEqual(whole, (await client.GetResponseAsync(Hello, other)).Text);
        string stop = whole.Substring(4, 2);
        var stopping = Options.Clone();
        stopping.StopSequences = [stop];
        var stopped = await client.GetResponseAsync(Hello, stopping);
        Assert.Equal(
            (ChatFinishReason.Stop, whole[..whole.IndexOf(stop, StringComparison.Ordinal)]),
            (stopped.FinishReason, stopped.Text));
        var instructed = Options.Clone();
        instructed.Instructions = "Be brief.";
        Assert.Equal(whole, (await client.GetResponseAsync(Hello[1..], instructed)).Text);
        var defaults = await client.GetResponseAsync(Hello); // greedy
        Assert.Equal(defaults.Text, (await client.GetResponseAsync(Hello, new ChatOptions { Temperature = 0 })).Text);
    }

    [Fact]
    public async Task CancellationAndMisuse()
    {
        using var client = Open();
        using var cancel = new CancellationTokenSource();
        int seen = 0;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (var u in client.GetStreamingResponseAsync(Hello, Options, cancel.Token))
                if (++seen == 3) await cancel.CancelAsync();
        });
        Assert.Equal(3, seen);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() =>
            client.GetResponseAsync(Hello, Options, cancel.Token)
        );
        // and goes on afterwards
        Assert.Equal(ChatFinishReason.Length, (await client.GetResponseAsync(Hello, Options)).FinishReason);
        var both = await Task.WhenAll(client.GetResponseAsync(Hello, Options), client.GetResponseAsync(Hello, Options));
        Assert.Equal(both[0].Text, both[1].Text);
        await Assert.ThrowsAsync<HeadroomException>(() =>
            client.GetResponseAsync(Hello, new ChatOptions { ResponseFormat = ChatResponseFormat.Json })
        );
        await Assert.ThrowsAsync<HeadroomException>(() =>
            client.GetResponseAsync([new ChatMessage(ChatRole.User, [new DataContent(new byte[] { 1 }, "image/png")])])
        );
        await Assert.ThrowsAsync<HeadroomException>(() =>
            client.GetResponseAsync([new ChatMessage(ChatRole.User, new string('x', 500))])
        );
        await Assert.ThrowsAsync<HeadroomException>(() => client.GetResponseAsync(Hello, new ChatOptions { TopP = 2 }));
        Assert.Equal("bytes", client.GetService<ChatClientMetadata>()!.DefaultModelId);
        Assert.Same(client, client.GetService<IChatClient>());
        Assert.Null(client.GetService<string>());
        using var none = ByteModel.Open(50, new ByteTokenizer { ChatTemplate = null });
        Assert.Contains("chat template", Assert.Throws<HeadroomException>(() => new HeadroomChatClient(none)).Message);
    }

    /// <summary>
    /// Dispose in the middle of a stream, of a whole response, and while another waits: each ends with
    /// ObjectDisposedException, and nothing runs on memory that is gone.
    /// </summary>
    [Fact]
    public async Task DisposeDuringAResponse()
    {
        for (int round = 0; round < 20; round++)
        {
            var client = Open();
            int seen = 0;
            Task<ChatResponse>? waiting = null;
            await Assert.ThrowsAsync<ObjectDisposedException>(async () =>
            {
                await foreach (var u in client.GetStreamingResponseAsync(Hello, Options))
                    if (++seen == 2)
                    {
                        waiting = client.GetResponseAsync(Hello, Options);
                        client.Dispose();
                    }
            });
            Assert.Equal(2, seen);
            await Assert.ThrowsAsync<ObjectDisposedException>(() => waiting!);
            client.Dispose();
            await Assert.ThrowsAsync<ObjectDisposedException>(() => client.GetResponseAsync(Hello, Options));
        }
        for (int round = 0; round < 20; round++)
        {
            var client = Open();
            var options = Options.Clone();
            options.MaxOutputTokens = 300;
            var running = client.GetResponseAsync(Hello, options);
            await Task.Delay(round / 2, TestContext.Current.CancellationToken);
            client.Dispose();
            // it may have been done
            Assert.True(await Record.ExceptionAsync(() => running) is null or ObjectDisposedException);
        }
    }

    [Fact]
    public async Task SmolLm2Answers()
    {
        string file = Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
        using IChatClient client = new HeadroomChatClient(
            Generator.Open(TestDevice.Open(), new ModelSource(file), 256), "smollm2");
        var history = new List<ChatMessage> { new(ChatRole.User, "What is the capital of France?") };
        var response = await client.GetResponseAsync(history, new ChatOptions { MaxOutputTokens = 12 });
        Assert.Contains("Paris", response.Text);
        history.AddRange(response.Messages);
        history.Add(new(ChatRole.User, "And of Italy?"));
        var second = await client.GetResponseAsync(history, new ChatOptions { MaxOutputTokens = 4 });
        Assert.True(
            second.Usage!.CachedInputTokenCount >= response.Usage!.InputTokenCount,
            $"{second.Usage.CachedInputTokenCount} of {second.Usage.InputTokenCount} tokens reused");
    }
}
