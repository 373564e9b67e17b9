using System.Text;
using Headroom.Core;

namespace Headroom.Tests.Loop;

/// <summary>The power goes: nothing after it happens.</summary>
internal sealed class PowerCutException : Exception;

/// <summary>What goes wrong, drawn from a seed.</summary>
/// <param name="ErrorRate">Share of the operations that fail: EIO or ENOSPC, bytes written in part, renames that
/// happened and say that they did not.</param>
/// <param name="Full">Operations during which the disk is full: nothing can be written or made, renames and deletions
/// work.</param>
/// <param name="CutAt">Operation at which the power goes; 0 = it stays.</param>
/// <param name="LiesAt">Flush that says it is done and is not; 0 = none.</param>
/// <param name="Exchanges">Whether two folders can exchange their names.</param>
internal sealed record FaultPlan(
    double ErrorRate = 0, Range? Full = null, int CutAt = 0, int LiesAt = 0, bool Exchanges = true)
{
    public static FaultPlan Draw(Random random, int operations) =>
        new(
            random.Next(5) switch
            {
                0 => 0.01,
                1 => 0.05,
                _ => 0,
            },
            random.Next(4) == 0 && random.Next(1, operations) is var from
                ? from..(from + random.Next(1, operations / 2))
                : null,
            random.Next(3) > 0 ? random.Next(1, operations) : 0,
            random.Next(5) == 0 ? random.Next(1, operations / 6) : 0
        );
}

/// <summary>
/// A disk that fails as disks do. Everything is done on the real files below a folder, so that the code under test
/// reads what it wrote; beside that a model knows what has reached the platter: the bytes of a file at its last flush,
/// the names of a folder at its last flush. <see cref="PowerCut"/> makes of the folder one of the states that POSIX
/// allows then: of the names changed since, the first few or any of them; of the bytes written since, none, some, zeros
/// in their place, or all.
/// </summary>
internal sealed class FaultyFiles : FileLayer
{
    private const int NoSpace = 28, Fault = 5; // ENOSPC, EIO
    private readonly string _root;
    private readonly Random _random;
    private readonly FaultPlan _plan;
    private readonly Node _tree;
    private int _flushes;
    private bool _dead;

    public FaultyFiles(string root, int seed, FaultPlan? plan = null)
    {
        _root = root;
        _random = new Random(seed);
        _plan = plan ?? new FaultPlan();
        _tree = Read(root);
    }

    /// <summary>Operations so far.</summary>
    public int Operations { get; private set; }

    /// <summary>Whether a flush lied.</summary>
    public bool Lied { get; private set; }

    /// <summary>A file or a folder, as it is and as it is on the platter.</summary>
    private sealed class Node(bool folder)
    {
        public readonly bool IsFolder = folder;
        public Dictionary<string, Node> Names = [], NamesOnDisk = [];
        public readonly List<Action<Dictionary<string, Node>>> Pending = [];
        public byte[] Bytes = [], BytesOnDisk = [];
    }

    private static Node Read(string path)
    {
        if (File.Exists(path))
        {
            byte[] bytes = File.ReadAllBytes(path);
            return new Node(false) { Bytes = bytes, BytesOnDisk = bytes };
        }
        var names = Directory.GetFileSystemEntries(path).ToDictionary(e => Path.GetFileName(e), Read);
        return new Node(true) { Names = names, NamesOnDisk = new(names) };
    }

    private Node At(string path) =>
        Path.GetRelativePath(_root, Path.GetFullPath(path)) is var relative && relative == "."
            ? _tree
        : relative.Split('/').Aggregate(_tree, (n, name) => n.Names[name]);

    private (Node Folder, string Name) Place(string path) =>
        (At(Path.GetDirectoryName(Path.GetFullPath(path))!), Path.GetFileName(path));

    private static void Change(Node folder, Action<Dictionary<string, Node>> change)
    {
        change(folder.Names);
        folder.Pending.Add(change);
    }

    // True: the operation is to be done first, and fails then.
    private bool Begin(bool takesSpace)
    {
        if (_dead) throw new PowerCutException();
        if (++Operations == _plan.CutAt)
        {
            _dead = true;
            throw new PowerCutException();
        }
        if (takesSpace && _plan.Full is { } full && Operations >= full.Start.Value && Operations < full.End.Value)
            throw Error(NoSpace);
        if (_random.NextDouble() >= _plan.ErrorRate) return false;
        if (_random.Next(3) == 0) return true;
        throw Error(takesSpace && _random.Next(2) == 0 ? NoSpace : Fault);
    }

    private static IOException Error(int number) =>
        new(number == NoSpace ? "No space left on device" : "Input/output error", number);

    private void Do(bool takesSpace, Action action)
    {
        bool fails = Begin(takesSpace);
        action();
        if (fails) throw Error(Fault);
    }

    public override Stream Create(string path)
    {
        Stream? made = null;
        Do(true, () =>
        {
            var (folder, name) = Place(path);
            var node = new Node(false);
            Change(folder, names => names[name] = node);
            made = new Written(this, node, base.Create(path));
        });
        return made!;
    }

    public override Stream Append(string path)
    {
        if (_dead) throw new PowerCutException();
        var (folder, name) = Place(path);
        if (!folder.Names.TryGetValue(name, out var node))
        {
            node = new Node(false);
            Change(folder, names => names[name] = node);
        }
        return new Written(this, node, base.Append(path));
    }

    public override void Flush(Stream file)
    {
        Begin(false);
        var node = ((Written)file).Node;
        if (!Lies()) node.BytesOnDisk = node.Bytes;
    }

    public override void FlushFolder(string path)
    {
        Begin(false);
        if (Lies()) return;
        var node = At(path);
        node.NamesOnDisk = new(node.Names);
        node.Pending.Clear();
    }

    private bool Lies()
    {
        if (++_flushes != _plan.LiesAt) return false;
        return Lied = true;
    }

    public override void Move(string from, string to, bool replace = true) => Do(false, () =>
    {
        base.Move(from, to, replace);
        Rename(from, to);
    });

    public override void MoveFolder(string from, string to) => Do(false, () =>
    {
        base.MoveFolder(from, to);
        Rename(from, to);
    });

    public override bool Exchange(string one, string other)
    {
        bool done = false;
        if (!_plan.Exchanges) return false;
        Do(false, () =>
        {
            if (!(done = base.Exchange(one, other))) return;
            var (folder, name) = Place(one);
            var (_, second) = Place(other);
            var (a, b) = (folder.Names[name], folder.Names[second]);
            Change(folder, names => (names[name], names[second]) = (b, a));
        });
        return done;
    }

    private void Rename(string from, string to)
    {
        var (folder, name) = Place(from);
        var (other, final) = Place(to);
        if (folder != other) throw new NotSupportedException("a rename from folder to folder");
        var node = folder.Names[name];
        Change(folder, names =>
        {
            names.Remove(name);
            names[final] = node;
        });
    }

    public override void Delete(string path) => Do(false, () =>
    {
        base.Delete(path);
        var (folder, name) = Place(path);
        Change(folder, names => names.Remove(name));
    });

    /// <summary>One name after the other, as the platform's own does it: a cut in the middle leaves the rest.</summary>
    public override void DeleteFolder(string path)
    {
        foreach (string entry in Directory.GetFileSystemEntries(path).OrderBy(_ => _random.Next()))
        {
            if (Directory.Exists(entry)) DeleteFolder(entry);
            else Delete(entry);
        }
        Do(false, () =>
        {
            Directory.Delete(path);
            var (folder, name) = Place(path);
            Change(folder, names => names.Remove(name));
        });
    }

    public override void CreateFolder(string path)
    {
        if (Directory.Exists(path)) return;
        Do(true, () =>
        {
            base.CreateFolder(path);
            var (folder, name) = Place(path);
            var node = new Node(true);
            Change(folder, names => names[name] = node);
        });
    }

    /// <summary>Puts the folder into a state that a loss of power may leave.</summary>
    public void PowerCut()
    {
        _dead = true;
        bool inOrder = _random.Next(3) > 0; // as a journal does it, mostly
        Directory.Delete(_root, true);
        Lay(_root, _tree, inOrder);
    }

    private void Lay(string path, Node node, bool inOrder)
    {
        if (!node.IsFolder)
        {
            File.WriteAllBytes(path, Left(node));
            return;
        }
        Directory.CreateDirectory(path);
        var names = new Dictionary<string, Node>(node.NamesOnDisk);
        int first = _random.Next(node.Pending.Count + 1);
        for (int i = 0; i < node.Pending.Count; i++)
            if (inOrder ? i < first : _random.Next(2) == 0) node.Pending[i](names);
        foreach (var (name, below) in names) Lay(Path.Combine(path, name), below, inOrder);
    }

    private byte[] Left(Node node)
    {
        byte[] now = node.Bytes, old = node.BytesOnDisk;
        int same = now.AsSpan().CommonPrefixLength(old);
        if (now.Length == old.Length && same == old.Length) return now;
        int kept = _random.Next(same, now.Length + 1);
        return _random.Next(4) switch
        {
            0 => old,
            1 => now,
            2 => now[..kept],
            _ => [.. now[..kept], .. new byte[now.Length - kept]],
        };
    }

    /// <summary>The tree, for a message.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        foreach (string e in Directory.GetFileSystemEntries(_root, "*", SearchOption.AllDirectories).Order())
            text.AppendLine(Path.GetRelativePath(_root, e));
        return text.ToString();
    }

    /// <summary>
    /// A file that is being written: every write is an operation, and one that fails may have written some of its
    /// bytes.
    /// </summary>
    private sealed class Written(FaultyFiles files, Node node, Stream real) : Stream
    {
        public Node Node => node;
        public override bool CanRead => false;
        public override bool CanSeek => true;
        public override bool CanWrite => true;
        public override long Length => real.Length;
        public override long Position { get => real.Position; set => real.Position = value; }

        public override void Write(ReadOnlySpan<byte> bytes)
        {
            try
            {
                if (files.Begin(true)) throw Error(Fault);
            }
            catch (Exception e) when (e is IOException or PowerCutException)
            {
                Put(bytes[..files._random.Next(bytes.Length + 1)]);
                throw;
            }
            Put(bytes);
        }

        private void Put(ReadOnlySpan<byte> bytes)
        {
            int at = (int)real.Position;
            real.Write(bytes);
            real.Flush();
            node.Bytes =
            [
                .. node.Bytes.AsSpan(0, at),
                .. bytes,
                .. node.Bytes.AsSpan(Math.Min(node.Bytes.Length, at + bytes.Length)),
            ];
        }

        public override void SetLength(long value)
        {
            files.Begin(false);
            real.SetLength(value);
            node.Bytes = node.Bytes[..(int)Math.Min(value, node.Bytes.Length)];
        }

        public override void Flush()
        {
        }

        protected override void Dispose(bool disposing)
        {
            real.Dispose();
            base.Dispose(disposing);
        }
        public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));
        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();
        public override long Seek(long offset, SeekOrigin origin) => real.Seek(offset, origin);
    }
}
