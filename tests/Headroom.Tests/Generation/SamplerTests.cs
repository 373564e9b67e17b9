using Headroom.Core;
using Headroom.Formats.HuggingFace;
using Headroom.Inference;

namespace Headroom.Tests.Generation;

/// <summary>The sampler's semantics are those of transformers' logits processors.</summary>
public sealed class SamplerTests
{
    private static readonly float[] Logits = [1.0f, 3.0f, 2.0f, 3.0f, -1.0f, 0.5f];

    private static double[] Shares(SamplingOptions options, int draws = 20_000)
    {
        var sampler = new Sampler(options, Logits.Length);
        var counts = new double[Logits.Length];
        for (int i = 0; i < draws; i++) counts[sampler.Next(Logits.ToArray())] += 1.0 / draws;
        return counts;
    }

    private static double[] Softmax(double temperature, params int[] kept)
    {
        var p = new double[Logits.Length];
        foreach (int i in kept) p[i] = Math.Exp(Logits[i] / temperature);
        double sum = p.Sum();
        return p.Select(v => v / sum).ToArray();
    }

    private static void Close(double[] expected, double[] actual)
    {
        for (int i = 0; i < expected.Length; i++)
        {
            if (expected[i] == 0) Assert.Equal(0, actual[i]);
            else
                Assert.InRange(actual[i], expected[i] - 0.02, expected[i] + 0.02); // 20,000 draws: five standard errors
        }
    }

    [Fact]
    public void Temperature() =>
        Close(Softmax(0.7, 0, 1, 2, 3, 4, 5), Shares(new SamplingOptions { Temperature = 0.7f, TopK = 0 }));

    /// <summary>
    /// However small, a temperature sharpens the same order: logits over it must not run out of a float's range.
    /// </summary>
    [Theory]
    [InlineData(1e-3f)]
    [InlineData(1e-40f)]
    [InlineData(float.Epsilon)]
    public void TinyTemperaturesAreGreedy(float temperature)
    {
        var sampler = new Sampler(new SamplingOptions { Temperature = temperature, TopK = 0 }, Logits.Length);
        for (int i = 0; i < 50; i++) Assert.Contains(sampler.Next(Logits.ToArray()), (int[])[1, 3]);
    }

    [Theory]
    [InlineData(0, float.NaN)]
    [InlineData(1, float.PositiveInfinity)]
    [InlineData(0.5f, float.NaN)]
    public void LogitsThatAreNotFiniteEndTheText(float temperature, float odd)
    {
        var sampler = new Sampler(new SamplingOptions { Temperature = temperature, TopK = 0 }, 4);
        var e = Assert.Throws<HeadroomException>(() => sampler.Next([odd, odd, odd, odd]));
        Assert.Equal(1, e.ExitCode);
        Assert.Contains("not finite", e.Message);
    }

    [Fact]
    public void TopKKeepsTies()
    {
        Close(Softmax(1, 1, 3), Shares(new SamplingOptions { Temperature = 1, TopK = 1 }));
        Close(Softmax(1, 1, 2, 3), Shares(new SamplingOptions { Temperature = 1, TopK = 3 }));
        Close(Softmax(1, 0, 1, 2, 3, 4, 5), Shares(new SamplingOptions { Temperature = 1, TopK = 99 }));
    }

    [Fact]
    public void TopP()
    {
        // Softmax: 0.386, 0.386, 0.142, 0.052, 0.032, 0.007 of ids 1, 3, 2, 0, 5, 4.
        Close(Softmax(1, 1, 3), Shares(new SamplingOptions { Temperature = 1, TopK = 0, TopP = 0.75f }));
        Close(Softmax(1, 1, 2, 3), Shares(new SamplingOptions { Temperature = 1, TopK = 0, TopP = 0.8f }));
        Assert.Equal(
            1,
            Shares(
                    new SamplingOptions
                    {
                        Temperature = 1,
                        TopK = 0,
                        TopP = 1e-6f,
                    }
                )
                .Count(s => s > 0)
        ); // at least one
        // top_p counts within what top_k left: of 1, 3, 2 the first two have 0.845.
        Close(Softmax(1, 1, 3), Shares(new SamplingOptions { Temperature = 1, TopK = 3, TopP = 0.8f }));
    }

    [Fact]
    public void MinP() =>
        Close(
            Softmax(1, 1, 2, 3),
            Shares(
                new SamplingOptions
                {
                    Temperature = 1,
                    TopK = 0,
                    MinP = 0.3f,
                }
            )
        );

    [Fact]
    public void GreedyTakesTheFirstOfEqualsAndThePenaltyCounts()
    {
        Assert.Equal(1, new Sampler(new SamplingOptions(), 6).Next(Logits.ToArray()));
        var penalized = new Sampler(new SamplingOptions { RepetitionPenalty = 2 }, 6);
        penalized.See([1]);
        Assert.Equal(3, penalized.Next(Logits.ToArray())); // 3.0 / 2 falls behind; now 3 is seen too
        Assert.Equal(2, penalized.Next(Logits.ToArray()));
        float[] negative = [-1, -3];
        var minus = new Sampler(new SamplingOptions { RepetitionPenalty = 4 }, 2);
        minus.See([0]);
        Assert.Equal(1, minus.Next(negative)); // -1 * 4
    }

    [Fact]
    public void OptionsOfGenerationConfig()
    {
        string folder = Directory.CreateTempSubdirectory("headroom-").FullName;
        try
        {
            string file = Path.Combine(folder, "generation_config.json");
            Assert.Equal(0, SamplingOptions.Take(GenerationConfig.Beside(folder)).Temperature);
            File.WriteAllText(
                file,
                """{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1, "eos_token_id": [3, 4], "max_new_tokens": 9}"""
            );
            var c = GenerationConfig.Beside(Path.Combine(folder, "model.gguf"));
            var s = SamplingOptions.Take(c);
            Assert.Equal(
                (0.6f, 0.9f, 20, 1.1f, 9), (s.Temperature, s.TopP, s.TopK, s.RepetitionPenalty, c.MaxNewTokens));
            Assert.Equal([3, 4], c.EosTokenIds);
            File.WriteAllText(file, """{"temperature": 0.6, "eos_token_id": 2}""");
            Assert.Equal(0, SamplingOptions.Take(GenerationConfig.Beside(folder)).Temperature); // do_sample is off
            foreach (string bad in new[] { "{", "[]", """{"top_k": "many"}""", """{"eos_token_id": ["x"]}""" })
            {
                File.WriteAllText(file, bad);
                Assert.Contains(
                    "damaged", Assert.Throws<HeadroomException>(() => GenerationConfig.Beside(folder)).Message);
            }
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
