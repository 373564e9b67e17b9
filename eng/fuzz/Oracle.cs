using System.Diagnostics;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Fuzz;

/// <summary>The peer: a process that answers one JSON line for each it is given.</summary>
internal sealed class Oracle : IDisposable
{
    private static readonly JsonSerializerOptions Relaxed = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };
    // for one answer: the peer needs less than a second for any that ends
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private readonly ProcessStartInfo _start;
    private Process _process;

    /// <summary>Starts a program; a missing one, or one that lacks its package, fails at the first question.</summary>
    public Oracle(string program, string script)
    {
        _start = new ProcessStartInfo(program, [script])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardInputEncoding = new UTF8Encoding(false),
            StandardOutputEncoding = new UTF8Encoding(false),
        };
        // One thread: the process shares its machine.
        _start.Environment["TOKENIZERS_PARALLELISM"] = "false";
        _start.Environment["PYTHONHASHSEED"] = "0";
        _start.Environment["PYTHONIOENCODING"] = "utf-8";
        _process = Start();
    }

    /// <summary>Times that the peer died of a question and was started again.</summary>
    public int Deaths { get; private set; }

    private Process Start()
    {
        var process = Process.Start(_start)!;
        process.ErrorDataReceived += (_, e) => _said = e.Data ?? _said;
        process.BeginErrorReadLine();
        return process;
    }

    private string _said = "";

    // Null when the peer died, or was ended because it does not come to an end.
    private string? ReadLine()
    {
        var line = _process.StandardOutput.ReadLineAsync();
        if (!line.Wait(Patience)) _process.Kill();
        return line.GetAwaiter().GetResult();
    }

    /// <summary>
    /// The answers, in order; of a question that the peer died of or did not come to an end with, null.
    /// </summary>
    public List<JsonNode?> Ask(IReadOnlyList<JsonObject> questions)
    {
        var answers = new List<JsonNode?>(questions.Count);
        bool lived = false;
        while (answers.Count < questions.Count)
        {
            var (to, from) = (_process.StandardInput, answers.Count);
            var send = Task.Run(() =>
            {
                for (int i = from; i < questions.Count; i++) to.WriteLine(questions[i].ToJsonString(Relaxed));
                to.Flush();
            });
            while (answers.Count < questions.Count && ReadLine() is { } line)
            {
                // A line that was cut off is no answer.
                try { answers.Add(JsonNode.Parse(line)!); }
                catch (JsonException) { break; }
                lived = true;
            }
            if (answers.Count == questions.Count)
            {
                send.GetAwaiter().GetResult();
                break;
            }
            if (
                !lived
                && Deaths == 0
                && from == 0
                && _process.WaitForExit(1000)
                && _said.Contains("not find", StringComparison.Ordinal)
            )
                throw new InvalidOperationException(
                    $"{_start.FileName} cannot start ({_said}); README.md says what it needs.");
            answers.Add(null);
            Deaths++;
            if (!_process.HasExited) _process.Kill();
            _process.Dispose();
            _process = Start();
        }
        return answers;
    }

    public void Dispose()
    {
        _process.StandardInput.Close();
        if (!_process.WaitForExit(5000)) _process.Kill();
        _process.Dispose();
    }
}
